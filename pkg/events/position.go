package events

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// Position is a place in the order of all recorded events. The era changes when a log moves to another Postgres
// cluster, whose transaction ids start anew. To users it is an opaque string.
type Position struct {
	Era int16
	Tx  uint64
	Seq int64
}

// ErrPosition is returned for text that is no position.
var ErrPosition = errors.New("not a position")

// IsZero says whether p is before every event.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions: -1 when p is before q, 0, or 1.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Era, q.Era), cmp.Compare(p.Tx, q.Tx), cmp.Compare(p.Seq, q.Seq))
}

func (p Position) String() string {
	if p.IsZero() {
		return ""
	}
	b := binary.AppendUvarint(nil, uint64(uint16(p.Era)))
	b = binary.AppendUvarint(b, p.Tx)
	b = binary.AppendUvarint(b, uint64(p.Seq))
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParsePosition reads what String wrote; "" is the position before every event.
func ParsePosition(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return Position{}, ErrPosition
	}
	var parts [3]uint64
	for i := range parts {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return Position{}, ErrPosition
		}
		parts[i], b = v, b[n:]
	}
	if len(b) != 0 || parts[0] > 0x7fff || parts[2] > 1<<63-1 {
		return Position{}, ErrPosition
	}
	p := Position{Era: int16(parts[0]), Tx: parts[1], Seq: int64(parts[2])}
	if p.String() != s { // one text for one position
		return Position{}, ErrPosition
	}
	return p, nil
}

// MarshalText implements encoding.TextMarshaler.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Position) UnmarshalText(b []byte) error {
	q, err := ParsePosition(string(b))
	if err != nil {
		return err
	}
	*p = q
	return nil
}
