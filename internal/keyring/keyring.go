// Package keyring keeps a node's secrets: the device key and, for each library,
// what a member needs to prove itself and to read. They live in files of their
// own, readable by the owner alone, and never in the store, which may be a
// database that others can read.
package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cansync/cansync/internal/capability"
)

// Errors of a key ring.
var (
	// ErrUnsafe says that a key could be read by others; the message names the
	// file and what to do.
	ErrUnsafe = errors.New("keyring: key is not private")
	// ErrDamaged says that a key file can't be read.
	ErrDamaged = errors.New("keyring: key file damaged")
)

const (
	identityFile = "identity.key"
	lockFile     = "lock"
	librarySub   = "libraries"
	fileSuffix   = ".key"
	maxFile      = 1 << 20
)

// State says what a library's keys are kept for.
type State string

// The states.
const (
	// Joining: a ticket is there, a membership not yet.
	Joining State = "joining"
	// Active: the node is a member.
	Active State = "active"
	// Archived: the node left; the keys are kept so that it can come back.
	Archived State = "archived"
)

// Library is what a node keeps of one library.
type Library struct {
	ID    [32]byte
	State State
	// Name is the name by which the library was created or joined, for the time in
	// which its description is not known.
	Name string
	// Owner is the owner key; zero on every device but the owner's.
	Owner capability.SigningKey
	// Lasting keys what must stay the same for the life of the library.
	Lasting capability.Secret
	// Epochs are the epoch secrets, the newest last.
	Epochs []Epoch
	// Bundle is the node's own certificate chain in its encoding, and Cert the id
	// of the certificate it ends in.
	Bundle []byte
	Cert   [32]byte
	// Ticket is the secret text of the ticket while joining.
	Ticket string
	// View is the encoded filter by which this node's view is narrower than the
	// library; nil is none.
	View []byte
	// Mode is what the host wants this node to do in the library; empty is all.
	Mode string
	// Rested is the mode before the host paused the library; empty is all.
	Rested string
	// Approve says that nothing is announced that the host did not approve.
	Approve bool
	// Upload and Download limit the library's traffic in bytes per second, and Quota
	// the bytes of it that the node fetches; 0 is no limit.
	Upload, Download, Quota int64
	// Met says that the node reconciled with a member since it joined.
	Met bool
}

// Epoch is one epoch secret.
type Epoch struct {
	Number uint32
	Secret capability.Secret
}

// Ring holds the secrets of one node. It is safe for concurrent use.
type Ring struct {
	root *os.Root // nil for a ring in memory
	lock *os.File // keeps other processes out

	mu     sync.Mutex
	device capability.Device
	libs   map[[32]byte]Library
}

// Memory returns a ring that is gone with the process.
func Memory(random io.Reader) (*Ring, error) {
	d, err := capability.NewDevice(random)
	if err != nil {
		return nil, err
	}
	return &Ring{device: d, libs: make(map[[32]byte]Library)}, nil
}

// Open reads the ring in dir, which is made when absent, and makes a device key
// where there is none. A folder that another process uses is refused with
// store.ErrLocked. It refuses keys that others can read and folders that
// belong to someone else with [ErrUnsafe].
func Open(dir string, random io.Reader) (*Ring, error) {
	if err := os.MkdirAll(filepath.Join(dir, librarySub), 0o700); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	for _, d := range []string{dir, filepath.Join(dir, librarySub)} {
		if err := secureDir(d); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	r := &Ring{root: root, libs: make(map[[32]byte]Library)}
	if r.lock, err = lock(root); err == nil {
		err = r.load(random)
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) load(random io.Reader) error {
	b, err := r.read(identityFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d, err := capability.NewDevice(random)
		if err != nil {
			return err
		}
		seed := d.Seed()
		if err := r.write(identityFile, append([]byte(hex.EncodeToString(seed[:])), '\n')); err != nil {
			return err
		}
		r.device = d
	case err != nil:
		return err
	default:
		seed, err := hex.DecodeString(string(bytes.TrimSpace(b)))
		if err != nil || len(seed) != 32 {
			return fmt.Errorf("%w: %s does not hold 64 hexadecimal digits", ErrDamaged, identityFile)
		}
		r.device = capability.DeviceFromSeed([32]byte(seed))
	}
	entries, err := fs.ReadDir(r.root.FS(), librarySub)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), fileSuffix) {
			if strings.HasSuffix(e.Name(), tempSuffix) {
				_ = r.root.Remove(filepath.Join(librarySub, e.Name()))
			}
			continue
		}
		b, err := r.read(filepath.Join(librarySub, e.Name()))
		if err != nil {
			return err
		}
		lib, err := decode(b)
		if err != nil {
			return fmt.Errorf("%w: %s", err, e.Name())
		}
		// A copy beside the original would count in place of it or not, by its name.
		if want := filepath.Base(fileOf(lib.ID)); e.Name() != want {
			return fmt.Errorf("%w: %s holds the keys of another library than its name says: rename it to %s, or move it out of the folder if there is one", ErrDamaged, e.Name(), want)
		}
		r.libs[lib.ID] = lib
	}
	return nil
}

// Device returns the device key.
func (r *Ring) Device() capability.Device { return r.device }

// Libraries returns all libraries, ordered by id.
func (r *Ring) Libraries() []Library {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.libs), func(a, b Library) int { return bytes.Compare(a.ID[:], b.ID[:]) })
}

// Library returns one library, if the ring holds it.
func (r *Ring) Library(id [32]byte) (Library, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.libs[id]
	return l, ok
}

// Save stores a library, durably before it returns.
func (r *Ring) Save(l Library) error {
	if r.root != nil {
		b, err := encode(l)
		if err != nil {
			return err
		}
		if err := r.write(fileOf(l.ID), b); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.libs[l.ID] = l
	r.mu.Unlock()
	return nil
}

// Remove forgets a library for good.
func (r *Ring) Remove(id [32]byte) error {
	if r.root != nil {
		if err := r.root.Remove(fileOf(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keyring: %w", err)
		}
	}
	r.mu.Lock()
	delete(r.libs, id)
	r.mu.Unlock()
	return nil
}

// Close releases the folder.
func (r *Ring) Close() error {
	if r.root == nil {
		return nil
	}
	if r.lock != nil {
		_ = r.lock.Close()
	}
	return r.root.Close()
}

func fileOf(id [32]byte) string {
	return filepath.Join(librarySub, hex.EncodeToString(id[:])+fileSuffix)
}

const tempSuffix = ".tmp"

// write replaces a file so that a crash leaves the old or the new one.
func (r *Ring) write(name string, b []byte) (err error) {
	var salt [6]byte
	_, _ = rand.Read(salt[:]) // crypto/rand does not fail
	tmp := name + "." + hex.EncodeToString(salt[:]) + tempSuffix
	f, err := r.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = r.root.Rename(tmp, name)
	}
	if err != nil {
		_ = r.root.Remove(tmp)
		return fmt.Errorf("keyring: %w", err)
	}
	if d, err := r.root.Open(filepath.Dir(name)); err == nil {
		err = d.Sync()
		_ = d.Close()
		if err != nil {
			return fmt.Errorf("keyring: %w", err)
		}
	}
	return nil
}

func (r *Ring) read(name string) ([]byte, error) {
	f, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run chmod 600 on it, and make new keys if others may have read it", ErrUnsafe, name, st.Mode().Perm())
	}
	if err := ownedByUs(st); err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrUnsafe, name, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%w: %s is too large", ErrDamaged, name)
	}
	return b, err
}

func secureDir(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if err := ownedByUs(st); err != nil {
		return fmt.Errorf("%w: folder %s %w", ErrUnsafe, dir, err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("%w: folder %s has mode %04o: %w", ErrUnsafe, dir, st.Mode().Perm(), err)
		}
	}
	return nil
}

// file is the JSON form of a Library. All secrets are hexadecimal.
type file struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	State   State  `json:"state"`
	Name    string `json:"name"`
	Owner   string `json:"owner,omitempty"`
	Lasting string `json:"lasting,omitempty"`
	Epochs  []struct {
		Number uint32 `json:"number"`
		Secret string `json:"secret"`
	} `json:"epochs,omitempty"`
	Bundle  string `json:"bundle,omitempty"`
	Cert    string `json:"cert,omitempty"`
	Ticket  string `json:"ticket,omitempty"`
	View    string `json:"view,omitempty"`
	Approve bool   `json:"approve,omitempty"`
	Met     bool   `json:"met,omitempty"`
	Mode    string `json:"mode,omitempty"`
	Rested  string `json:"mode_before_pause,omitempty"`
	// Bytes per second, and bytes.
	Upload   int64 `json:"upload_limit,omitempty"`
	Download int64 `json:"download_limit,omitempty"`
	Quota    int64 `json:"quota,omitempty"`
}

func encode(l Library) ([]byte, error) {
	f := file{Version: 1, ID: hex.EncodeToString(l.ID[:]), State: l.State, Name: l.Name, Bundle: hex.EncodeToString(l.Bundle), Ticket: l.Ticket, View: hex.EncodeToString(l.View), Approve: l.Approve, Met: l.Met, Mode: l.Mode, Rested: l.Rested, Upload: l.Upload, Download: l.Download, Quota: l.Quota}
	if !l.Owner.IsZero() {
		s := l.Owner.Seed()
		f.Owner = hex.EncodeToString(s[:])
	}
	if !l.Lasting.IsZero() {
		s := l.Lasting.Bytes()
		f.Lasting = hex.EncodeToString(s[:])
	}
	if l.Cert != [32]byte{} {
		f.Cert = hex.EncodeToString(l.Cert[:])
	}
	for _, e := range l.Epochs {
		s := e.Secret.Bytes()
		f.Epochs = append(f.Epochs, struct {
			Number uint32 `json:"number"`
			Secret string `json:"secret"`
		}{e.Number, hex.EncodeToString(s[:])})
	}
	return json.MarshalIndent(f, "", "  ")
}

func decode(b []byte) (Library, error) {
	var f file
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Library{}, fmt.Errorf("%w: not the JSON of a library", ErrDamaged) // the cause may quote a secret
	}
	if f.Version != 1 {
		return Library{}, fmt.Errorf("%w: version %d is not known to this release", ErrDamaged, f.Version)
	}
	var bad error
	h32 := func(field, s string) (v [32]byte) {
		p, err := hex.DecodeString(s)
		if err != nil || len(p) != len(v) && len(p) != 0 {
			bad = fmt.Errorf("%w: field %s", ErrDamaged, field)
			return v
		}
		copy(v[:], p)
		return v
	}
	l := Library{ID: h32("id", f.ID), State: f.State, Name: f.Name, Cert: h32("cert", f.Cert), Ticket: f.Ticket, Approve: f.Approve, Met: f.Met, Mode: f.Mode, Rested: f.Rested, Upload: f.Upload, Download: f.Download, Quota: f.Quota}
	if f.Owner != "" {
		l.Owner = capability.SigningKeyFromSeed(h32("owner", f.Owner))
	}
	l.Lasting = capability.SecretFromBytes(h32("lasting", f.Lasting))
	for _, e := range f.Epochs {
		l.Epochs = append(l.Epochs, Epoch{e.Number, capability.SecretFromBytes(h32("epochs", e.Secret))})
	}
	bundle, err := hex.DecodeString(f.Bundle)
	if err != nil {
		bad = fmt.Errorf("%w: field bundle", ErrDamaged)
	}
	if len(bundle) > 0 {
		l.Bundle = bundle
	}
	if l.View, err = hex.DecodeString(f.View); err != nil {
		bad = fmt.Errorf("%w: field view", ErrDamaged)
	}
	if min(f.Upload, f.Download, f.Quota) < 0 {
		bad = fmt.Errorf("%w: negative limit", ErrDamaged)
	}
	switch f.State {
	case Joining, Active, Archived:
	default:
		bad = fmt.Errorf("%w: field state", ErrDamaged)
	}
	return l, bad
}
