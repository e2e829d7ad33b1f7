package cansync_test

import (
	"crypto/sha256"

	"github.com/cansync/cansync/can"
)

func digestOf(b []byte) can.Digest { return sha256.Sum256(b) }
