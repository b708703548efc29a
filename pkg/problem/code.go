package problem

import (
	"maps"
	"slices"
)

//go:generate go run ./generate

// Codes lists the catalogue's codes in alphabetical order.
func Codes() []Code { return slices.Sorted(maps.Keys(catalogue)) }

// row is that of internal for a code that the catalogue does not have: one of a newer server.
func (c Code) row() row {
	if r, ok := catalogue[c]; ok {
		return r
	}
	return catalogue[Internal]
}

// Status is the HTTP status of the code.
func (c Code) Status() int { return c.row().status }

// Exit is the exit code of the command line.
func (c Code) Exit() int { return c.row().exit }

// Title is the RFC 9457 title: the same for every occurrence.
func (c Code) Title() string { return c.row().title }

// Mend says what the caller can do.
func (c Code) Mend() string { return c.row().mend }
