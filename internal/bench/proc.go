package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// usage is what a process used so far.
type usage struct {
	cpu   time.Duration // of all its threads, in steps of 10 ms
	sys   time.Duration // what of that the kernel spent on their behalf
	stood time.Duration // its threads could have run and had no core
	anon  int64         // anonymous resident memory now, in bytes
	wrote int64         // bytes written to block devices, as the kernel counts them
}

// clockTick is the unit of times in /proc, which has been a hundredth of a second
// on every Linux of the last decades.
const clockTick = 10 * time.Millisecond

// usageOf reads what a process used from /proc.
func usageOf(pid int) (u usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The name in parentheses may hold anything, so fields are counted behind it.
	rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(rest) < 13 {
		return u, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(rest))
	}
	for _, f := range rest[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.sys = time.Duration(n) * clockTick
		u.cpu += u.sys
	}
	u.stood = stoodOf(pid)
	if u.anon, err = procField(pid, "status", "RssAnon:"); err != nil {
		return u, err
	}
	u.anon *= 1 << 10
	u.wrote, _ = procField(pid, "io", "write_bytes:") // absent where it may not be read
	return u, nil
}

// stoodOf adds up how long the threads of a process stood in line for a core. It is
// 0 where the kernel does not tell; a thread that ended is left out.
func stoodOf(pid int) (total time.Duration) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, _ := os.ReadDir(dir)
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/schedstat")
		if err != nil {
			continue
		}
		if f := strings.Fields(string(b)); len(f) > 1 { // time on a core, time in line
			ns, _ := strconv.ParseInt(f[1], 10, 64)
			total += time.Duration(ns)
		}
	}
	return total
}

func procField(pid int, file, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseInt(strings.Fields(v)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s: no %s", pid, file, name)
}

// meter measures processes over a time.
type meter struct {
	kids   []*child
	before []usage
	peak   []int64
	stop   chan struct{}
	wg     sync.WaitGroup
}

// spent is what a process used while a meter ran.
type spent struct {
	name  string
	cpu   time.Duration
	sys   time.Duration // of cpu
	stood time.Duration // in line for a core, all threads added up
	peak  int64         // the most anonymous memory seen, looked at every 20 ms
	wrote int64
}

func (s spent) String() string {
	return fmt.Sprintf("%s %.2f CPU s (%.2f in the kernel, %.2f in line), %s", s.name, s.cpu.Seconds(), s.sys.Seconds(), s.stood.Seconds(), mib(s.peak))
}

// measure begins to measure.
func measure(kids ...*child) (*meter, error) {
	m := &meter{kids: kids, peak: make([]int64, len(kids)), stop: make(chan struct{})}
	for i, k := range kids {
		u, err := usageOf(k.pid())
		if err != nil {
			return nil, err
		}
		m.before = append(m.before, u)
		m.peak[i] = u.anon
	}
	m.wg.Go(func() {
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-m.stop:
				return
			}
			for i, k := range m.kids {
				if kib, err := procField(k.pid(), "status", "RssAnon:"); err == nil {
					m.peak[i] = max(m.peak[i], kib<<10)
				}
			}
		}
	})
	return m, nil
}

// end ends the measurement.
func (m *meter) end() ([]spent, error) {
	close(m.stop)
	m.wg.Wait()
	var out []spent
	for i, k := range m.kids {
		u, err := usageOf(k.pid())
		if err != nil {
			return nil, err
		}
		was := m.before[i]
		out = append(out, spent{k.name, u.cpu - was.cpu, u.sys - was.sys, max(0, u.stood-was.stood), max(m.peak[i], u.anon), u.wrote - was.wrote})
	}
	return out, nil
}

// describe joins what several processes used.
func describe(all []spent) string {
	parts := make([]string, len(all))
	for i, s := range all {
		parts[i] = s.String()
	}
	return strings.Join(parts, "; ")
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// diskUse returns the bytes that the files below a directory take on the disk.
func diskUse(dir string) (total int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, en := range entries {
		path := dir + "/" + en.Name()
		if en.IsDir() {
			total += diskUse(path)
			continue
		}
		total += blocksOf(path)
	}
	return total
}

// watchDisk looks at what a directory takes on the disk every 20 ms. The function it
// returns ends that and tells by how much it grew at most.
func watchDisk(dir string) func() int64 {
	first := diskUse(dir)
	most := first
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				most = max(most, diskUse(dir))
			case <-stop:
				return
			}
		}
	})
	return func() int64 {
		close(stop)
		wg.Wait()
		return max(most, diskUse(dir)) - first
	}
}
