package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cansync/cansync/examples/canservice/service"
	"go.yaml.in/yaml/v3"
)

const (
	defaultRoot = "./can_data"
	defaultPort = "3210"
	maxConfig   = 1 << 20
)

// fileConfig is the configuration file; an absent key keeps its default.
type fileConfig struct {
	StorageRoot           *string  `yaml:"storage_root"`
	AdminToken            string   `yaml:"admin_token"`
	EnableThumbnailCache  *bool    `yaml:"enable_thumbnail_cache"`
	VerifyIntervalHours   *float64 `yaml:"verify_interval_hours"`
	RebuildErrorThreshold *int     `yaml:"rebuild_error_threshold"`
	HashRule              string   `yaml:"hash_rule"`
	Durable               bool     `yaml:"durable"`
}

type settings struct {
	service service.Config
	port    string
}

// load reads the configuration file at path, if one is named, and the
// environment.
func load(path string, getenv func(string) string) (settings, error) {
	var data []byte
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return settings{}, fmt.Errorf("configuration: %w", err)
		}
		defer f.Close()
		if data, err = io.ReadAll(io.LimitReader(f, maxConfig+1)); err != nil {
			return settings{}, fmt.Errorf("configuration: %w", err)
		}
		if len(data) > maxConfig {
			return settings{}, fmt.Errorf("configuration %s is larger than %d bytes", path, maxConfig)
		}
	}
	set, err := parse(data)
	if err != nil {
		return settings{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	if v := getenv("CAN_STORAGE_ROOT"); v != "" {
		set.service.StorageRoot = v
	}
	set.port = defaultPort
	if v := getenv("CAN_PORT"); v != "" {
		if n, err := strconv.ParseUint(v, 10, 16); err != nil {
			return settings{}, fmt.Errorf("CAN_PORT is %q; want a port from 1 to 65535, or 0 for any that is free", v)
		} else {
			set.port = strconv.FormatUint(n, 10)
		}
	}
	return set, nil
}

// parse reads a configuration file. Unknown keys are an error that names them.
func parse(data []byte) (settings, error) {
	var c fileConfig
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		var te *yaml.TypeError
		if errors.As(err, &te) {
			return settings{}, errors.New(strings.ReplaceAll(strings.Join(te.Errors, "; "), "field ", "key ") +
				"; known keys are storage_root, admin_token, enable_thumbnail_cache, verify_interval_hours, rebuild_error_threshold, hash_rule, durable")
		}
		return settings{}, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return settings{}, errors.New("want one YAML document")
	}
	out := service.Config{StorageRoot: defaultRoot, AdminToken: c.AdminToken, HashRule: service.HashRule(c.HashRule), Durable: c.Durable}
	if c.StorageRoot != nil {
		if out.StorageRoot = *c.StorageRoot; out.StorageRoot == "" {
			return settings{}, errors.New("storage_root is empty")
		}
	}
	switch out.HashRule {
	case "", service.HashContent, service.HashTimestamp:
	default:
		return settings{}, fmt.Errorf("hash_rule is %q; want %q or %q", c.HashRule, service.HashContent, service.HashTimestamp)
	}
	if c.EnableThumbnailCache != nil {
		out.NoThumbnailCache = !*c.EnableThumbnailCache
	}
	if h := c.VerifyIntervalHours; h != nil {
		// A year and more would do no verification in a lifetime of most disks, and
		// far larger numbers would overflow.
		if math.IsNaN(*h) || *h < 0 || *h > 24*366*10 {
			return settings{}, fmt.Errorf("verify_interval_hours is %v; want 0 (never) to ten years", *h)
		}
		out.VerifyInterval = time.Duration(*h * float64(time.Hour))
		if out.VerifyInterval == 0 {
			out.VerifyInterval = -1
		} else {
			out.VerifyInterval = max(out.VerifyInterval, time.Minute)
		}
	}
	if n := c.RebuildErrorThreshold; n != nil {
		if *n < 0 {
			return settings{}, fmt.Errorf("rebuild_error_threshold is %d; want 0 or more", *n)
		}
		if out.RebuildErrorThreshold = *n; *n == 0 {
			out.RebuildErrorThreshold = -1
		}
	}
	return settings{service: out}, nil
}
