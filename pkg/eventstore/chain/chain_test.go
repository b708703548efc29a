package chain_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/chain"
)

func record() chain.Record {
	return chain.Record{
		Stream: "vm/0190e0a2-0000-7000-8000-000000000001", Version: 3,
		ID: uuid.MustParse("0190e0a2-0000-7000-8000-000000000002"), Type: "vm.started", Schema: 2,
		At:   time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC),
		Data: []byte(`{"cpus":2}`), Meta: []byte(`{"actor":"uid:0"}`),
	}
}

// The hash of a recorded event may never change.
func TestSumGolden(t *testing.T) {
	const want = "92e3995d7529fbd28862eb0f85f1a5fab52b31125c5bfb8484fa394ffef6ad76"
	if got := hex.EncodeToString(chain.Sum([]byte{1, 2, 3}, record())); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSumCoversEveryField(t *testing.T) {
	base := chain.Sum(nil, record())
	for name, change := range map[string]func(*chain.Record){
		"stream":  func(r *chain.Record) { r.Stream += "0" },
		"version": func(r *chain.Record) { r.Version++ },
		"id":      func(r *chain.Record) { r.ID[15]++ },
		"type":    func(r *chain.Record) { r.Type = "vm.stopped" },
		"schema":  func(r *chain.Record) { r.Schema++ },
		"at":      func(r *chain.Record) { r.At = r.At.Add(time.Microsecond) },
		"data":    func(r *chain.Record) { r.Data = []byte(`{"cpus":3}`) },
		"meta":    func(r *chain.Record) { r.Meta = []byte(`{}`) },
		"a border between two fields": func(r *chain.Record) {
			r.Data, r.Meta = r.Data[:len(r.Data)-1], append([]byte("}"), r.Meta...)
		},
	} {
		r := record()
		change(&r)
		if bytes.Equal(chain.Sum(nil, r), base) {
			t.Errorf("%s: the hash did not change", name)
		}
	}
	if bytes.Equal(chain.Sum([]byte{0}, record()), base) {
		t.Error("previous hash: the hash did not change")
	}
	same := record()
	same.At = same.At.In(time.FixedZone("elsewhere", 3600))
	if !bytes.Equal(chain.Sum(nil, same), base) {
		t.Error("the hash depends on the time zone")
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		`{ "b": 1, "a": [true, null] }`: `{"a":[true,null],"b":1}`,
		`1.50`:                          `1.5`,
		`1e2`:                           `100`,
		`-0`:                            `0`,
		`1E+30`:                         `1e+30`,
		`0.000001`:                      `0.000001`,
		`9007199254740992`:              `9007199254740992`,
		`-9007199254740992`:             `-9007199254740992`,
		`"\u00fc\/\u001f"`:              "\"ü/\\u001f\"",
		`"\\u0000"`:                     `"\\u0000"`,
		`9007199254740994`:              `9007199254740994`,
		`100000000000000000000`:         `100000000000000000000`,
		`1e20`:                          `100000000000000000000`,
		`1.7976931348623157e308`:        `1.7976931348623157e+308`,
		`"9007199254740993"`:            `"9007199254740993"`,
	} {
		got, err := chain.Canonical([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		``, `{`, `{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `"\u0000"`, `{"\u0000":1}`, `"\\\u0000"`, `9007199254740993`,
		`-9007199254740993`, `123456789012345678901234567890`, `1e400`, `-1e400`, "\"\xff\"", `"\ud800"`, `1 2`, `01`, `NaN`,
	} {
		if got, err := chain.Canonical([]byte(in)); !errors.Is(err, eventstore.ErrInvalid) {
			t.Errorf("%s: got %s, %v; want ErrInvalid", in, got, err)
		}
	}
}

func TestCanonicalLeavesItsInput(t *testing.T) {
	in := []byte(`{"b":1, "a":2}`)
	if _, err := chain.Canonical(in); err != nil || string(in) != `{"b":1, "a":2}` {
		t.Errorf("%s, %v", in, err)
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{`{"b":[1,2.5e3,"\u00fc"],"a":null}`, `"\\u0000"`, `-0`, `1e400`, `{`, `"\`, `[[]]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := chain.Canonical(in)
		if err != nil {
			if !errors.Is(err, eventstore.ErrInvalid) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if !json.Valid(first) || !json.Valid(in) {
			t.Fatalf("%q became %q", in, first)
		}
		second, err := chain.Canonical(first)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%q, then %q, %v", first, second, err)
		}
	})
}

func TestSealChainsAcrossStreams(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 1999, time.FixedZone("elsewhere", 3600))
	command := uuid.New()
	data := json.RawMessage(`{}`)
	head := eventstore.Head{Version: 4, Hash: []byte("head"), At: now.Add(time.Hour)}
	sealed, err := chain.Seal(eventstore.Append{Command: command, Streams: []eventstore.StreamAppend{
		{Stream: "vm/1", Head: head, Events: []events.Draft{{Type: "vm.a", Schema: 1, Data: data}, {Type: "vm.b", Schema: 1, Data: data}}},
		{Stream: "operation/1", Events: []events.Draft{{Type: "operation.a", Schema: 1, Data: data}}},
	}}, now)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := sealed.Events[0], sealed.Events[1], sealed.Events[2]
	if a.Version != 5 || b.Version != 6 || c.Version != 1 {
		t.Errorf("versions %d, %d, %d", a.Version, b.Version, c.Version)
	}
	if !bytes.Equal(a.PrevHash, head.Hash) || !bytes.Equal(b.PrevHash, a.Hash) || c.PrevHash != nil {
		t.Errorf("chained %x, %x, %x", a.PrevHash, b.PrevHash, c.PrevHash)
	}
	if a.ID != events.DerivedID(command, 0) || c.ID != events.DerivedID(command, 2) {
		t.Errorf("ids %s, %s", a.ID, c.ID)
	}
	if !a.At.Equal(head.At) || !b.At.Equal(head.At) || !c.At.Equal(now.Truncate(time.Microsecond)) || c.At.Location() != time.UTC {
		t.Errorf("at %v, %v, %v", a.At, b.At, c.At)
	}
}
