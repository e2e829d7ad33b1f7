package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cansync/cansync"
)

// defaultConfig is the file that is used when none is named.
const defaultConfig = "config.yaml"

// maxConfig bounds the size of a configuration file in bytes.
const maxConfig = 1 << 20

// config is the configuration file.
type config struct {
	ServiceURL string
	Listen     string // host:port or unix:<path>
	DataDir    string
	RelayURL   string
	Poll       time.Duration
	FullScan   time.Duration
	Network    cansync.Network
	Bootstrap  []string
	P2PListen  []string
	Upload     int64 // limits in bytes per second, 0 for none
	Download   int64
	Reserve    int64 // bytes of disk space to leave free, 0 for the default
	Token      string

	file string // where it was read, for errors
}

func defaults() config {
	return config{
		ServiceURL: "http://127.0.0.1:3210/api/v1/can/0",
		Listen:     "127.0.0.1:3213",
		DataDir:    "./can_sync_data",
		Poll:       5 * time.Second,
		FullScan:   300 * time.Second,
		Network:    cansync.Public,
	}
}

// load reads the file at path; without a path, the default one if there is one.
func load(path string) (config, error) {
	named := path != ""
	if !named {
		path = defaultConfig
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return defaults(), nil
	}
	if err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := parse(data)
	if err != nil {
		return config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	c.file = path
	return c, nil
}

// blame says which file an error about the configuration is about.
func (c config) blame(err error) error {
	if c.file == "" {
		return err
	}
	return fmt.Errorf("configuration %s: %w", c.file, err)
}

// key reads one key of the file.
type key struct {
	name string
	read func(*yaml.Node) error
}

// parse reads a configuration file. Unknown and repeated keys and values of the
// wrong type are errors that name the key and the line; an absent or empty value
// stands for the default. No error repeats a value that may be a secret.
func parse(data []byte) (config, error) {
	c := defaults()
	if len(data) > maxConfig {
		return c, fmt.Errorf("larger than %d bytes", maxConfig)
	}
	root, err := document(data)
	if err != nil || root == nil {
		return c, err
	}
	if root.Kind != yaml.MappingNode {
		return c, fmt.Errorf("line %d: want \"key: value\" lines", root.Line)
	}
	keys := []key{
		{"can_service_url", text(&c.ServiceURL)},
		{"listen_addr", text(&c.Listen)},
		{"data_dir", text(&c.DataDir)},
		{"relay_url", text(&c.RelayURL)},
		{"poll_interval_secs", seconds(&c.Poll, 24*3600)},
		{"full_scan_interval_secs", seconds(&c.FullScan, 30*24*3600)},
		{"network", text((*string)(&c.Network))},
		{"bootstrap", list(&c.Bootstrap)},
		{"listen", list(&c.P2PListen)},
		{"upload_limit", size(&c.Upload)},
		{"download_limit", size(&c.Download)},
		{"disk_reserve", size(&c.Reserve)},
		{"api_token", text(&c.Token)},
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		if err := assign(keys, seen, name, value); err != nil {
			return c, fmt.Errorf("line %d: %w", name.Line, err)
		}
	}
	return c, c.check()
}

// document returns the top of the one document in data, nil when it is empty.
func document(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("want one YAML document")
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		return nil, nil
	}
	return doc.Content[0], nil
}

func assign(keys []key, seen map[string]bool, name, value *yaml.Node) error {
	var known []string
	for _, k := range keys {
		known = append(known, k.name)
		if name.Kind != yaml.ScalarNode || name.Value != k.name {
			continue
		}
		if seen[k.name] {
			return fmt.Errorf("key %q is given twice", k.name)
		}
		seen[k.name] = true
		if isNull(value) {
			return nil
		}
		if err := k.read(value); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		return nil
	}
	what := name.Value
	if len(what) > 60 {
		what = strings.ToValidUTF8(what[:60], "") + "…"
	}
	return fmt.Errorf("unknown key %q; known keys are %s", what, strings.Join(known, ", "))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func text(into *string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			return errors.New("want a text; put it in quotes")
		}
		if strings.TrimSpace(n.Value) == "" {
			return errors.New("it is empty; leave the key out for the default")
		}
		*into = n.Value
		return nil
	}
}

func seconds(into *time.Duration, most int) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var secs int
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&secs) != nil || secs < 1 || secs > most {
			return fmt.Errorf("want a whole number of seconds from 1 to %d", most)
		}
		*into = time.Duration(secs) * time.Second
		return nil
	}
}

// units are the endings of sizes, with their factors.
var units = []struct {
	name   string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// size reads a number of bytes: a whole number, or a text such as "2MiB".
func size(into *int64) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		bad := errors.New("want a whole number of bytes, or one with a unit such as 500kB, 2MiB or 1GiB")
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && n.ShortTag() != "!!str" {
			return bad
		}
		digits, factor := n.Value, int64(1)
		for _, u := range units {
			if head, ok := strings.CutSuffix(digits, u.name); ok {
				digits, factor = strings.TrimSpace(head), u.factor
				break
			}
		}
		v, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || int64(v) > math.MaxInt64/factor {
			return bad
		}
		*into = int64(v) * factor
		return nil
	}
}

func list(into *[]string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.SequenceNode {
			return errors.New("want a list of multiaddrs, such as [\"/ip4/…\"]")
		}
		var out []string
		for _, item := range n.Content {
			var s string
			if err := text(&s)(item); err != nil {
				return fmt.Errorf("line %d: want a multiaddr in quotes", item.Line)
			}
			out = append(out, s)
		}
		*into = out
		return nil
	}
}

// minRemoteToken is the least length of a token that others than this machine's
// users may try to guess.
const minRemoteToken = 16

// minReserve is the least disk space to leave free: what the database may write
// between two looks at the disk.
const minReserve = 32 << 20

// check looks at what the file says as a whole. What concerns the node alone is
// left to cansync.New.
func (c config) check() error {
	switch c.Network {
	case cansync.Public, cansync.Private, cansync.LAN:
	default:
		return fmt.Errorf("network: want public, private or lan")
	}
	if u, err := url.Parse(c.ServiceURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("can_service_url: want a URL that begins with http:// or https://, such as http://127.0.0.1:3210/api/v1/can/0")
	}
	if c.Reserve > 0 && c.Reserve < minReserve {
		return errors.New("disk_reserve: want 32MiB or more, without which a disk that fills up could end the sidecar; 0 means 512MiB")
	}
	for _, r := range c.Token {
		if r <= ' ' || r > '~' {
			return errors.New("api_token: want visible ASCII characters without spaces")
		}
	}
	loopback, err := checkListen(c.Listen)
	if err != nil {
		return fmt.Errorf("listen_addr: %w", err)
	}
	if !loopback {
		return c.checkRemote()
	}
	return nil
}

// checkRemote says what it takes to listen where other machines can connect.
func (c config) checkRemote() error {
	switch {
	case c.Token == "":
		return fmt.Errorf("listen_addr: %s can be reached by other machines, which takes an api_token; set one, or listen on 127.0.0.1", c.Listen)
	case len(c.Token) < minRemoteToken:
		return fmt.Errorf("api_token: want %d characters or more where other machines can connect", minRemoteToken)
	}
	return nil
}

// unixPrefix begins a listen_addr that is a socket in the file system.
const unixPrefix = "unix:"

// checkListen checks the form of a listen_addr and reports whether it can be
// reached from this machine only, as far as can be told without resolving names.
func checkListen(addr string) (loopback bool, err error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		if path == "" {
			return false, errors.New("want a path behind the prefix unix")
		}
		return true, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, errors.New("want an address and a port, such as 127.0.0.1:3213")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return false, errors.New("want a port from 1 to 65535, or 0 for any that is free")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback(), nil
	}
	return strings.EqualFold(host, "localhost"), nil
}
