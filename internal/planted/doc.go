// Package planted shows that the tests find bugs: its own test plants one after
// another into the source, by an overlay that leaves the files alone, and runs the
// test that has to fail.
package planted
