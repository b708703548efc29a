package chain

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"horcrux/pkg/eventstore"
)

// exactDigits is how many digits every double keeps.
const exactDigits = 15

// Canonical returns the RFC 8785 form of a JSON value. It is the form that is hashed, and a round trip through jsonb,
// which keeps neither the order of keys nor the spelling of numbers, does not change it. What such a round trip, or a
// reader that has only doubles, would not keep is refused with ErrInvalid: the character U+0000, duplicate keys,
// invalid UTF-8, integers of which a double loses digits (RFC 7493) and numbers beyond the range of a double.
func Canonical(raw []byte) ([]byte, error) {
	if err := check(raw); err != nil {
		return nil, err
	}
	v := jsontext.Value(bytes.Clone(raw))
	if err := v.Canonicalize(); err != nil {
		return nil, fmt.Errorf("%w: %w", eventstore.ErrInvalid, err)
	}
	return v, nil
}

// check finds the characters and numbers that Canonicalize would let pass. It trusts nothing about the syntax, which
// Canonicalize checks afterwards.
func check(raw []byte) error {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			end, err := checkString(raw, i+1)
			if err != nil {
				return err
			}
			i = end
		case c == '-' || '0' <= c && c <= '9':
			end := i + 1
			for end < len(raw) && isNumber(raw[end]) {
				end++
			}
			if err := checkNumber(raw[i:end]); err != nil {
				return err
			}
			i = end - 1
		}
	}
	return nil
}

// checkString returns the index of the quote that ends the string begun before start.
func checkString(raw []byte, start int) (int, error) {
	for i := start; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			return i, nil
		case '\\':
			if bytes.HasPrefix(raw[i+1:], []byte("u0000")) {
				return 0, fmt.Errorf("%w: a string contains the character U+0000", eventstore.ErrInvalid)
			}
			i++
		}
	}
	return len(raw), nil
}

func isNumber(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

func checkNumber(n []byte) error {
	integer := !bytes.ContainsAny(n, ".eE")
	if integer && len(n) <= exactDigits {
		return nil
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return fmt.Errorf("%w: number %s is beyond the range of a double", eventstore.ErrInvalid, n)
	}
	// jsonb gives 1e20 back as an integer of 21 digits, which is right, and 2^53+1 as what it was.
	if integer && strconv.FormatFloat(f, 'f', -1, 64) != string(n) {
		return fmt.Errorf("%w: integer %s has more digits than a double keeps; write it as a string", eventstore.ErrInvalid, n)
	}
	return nil
}
