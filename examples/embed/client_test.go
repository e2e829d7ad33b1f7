package main

import (
	"testing"

	"github.com/cansync/cansync/can"
	"github.com/cansync/cansync/can/cantest"
)

// TestClientConforms is the test that every host should have.
func TestClientConforms(t *testing.T) {
	cantest.Run(t, func(*testing.T) can.Client { return client{newNotebook()} }, cantest.Suite{Strict: true})
}
