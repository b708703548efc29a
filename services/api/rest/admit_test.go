package rest

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/uuid"
)

// keyed is a vault whose digests bear its mark.
type keyed struct{}

func (keyed) Seal(context.Context, []byte) (uuid.UUID, error) { return uuid.New(), nil }

func (keyed) Digest(data []byte) ([]byte, error) { return append([]byte("keyed "), data...), nil }

func TestDigestOfAPasswordIsKeyed(t *testing.T) {
	digest := func(body string) []byte {
		c := &call{route: &route{method: "POST"}, req: &http.Request{Method: "POST", URL: &url.URL{Path: "/api/vms"}}, body: []byte(body)}
		d, err := c.digest(keyed{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for body, want := range map[string]bool{
		``:                                  false,
		`{"name":"a"}`:                      false,
		`{"vnc":{"password":"x"}}`:          true,
		`{"vnc":{"p\u0061ssword":"x"}}`:     true,
		`{"vnc":{"password":null}}`:         false,
		`{"vnc":{"password":""}}`:           false,
		`{"name":"password","tags":["x"]}`:  false,
		`{"all":[{"password":"x"}]}`:        true,
		`{"tags":["a","b"],"nothing":[{}]}`: false,
	} {
		d := digest(body)
		if got := bytes.HasPrefix(d, []byte("keyed ")); got != want {
			t.Errorf("%s: keyed is %t", body, got)
		}
		if bytes.Equal(d, digest(body+" ")) {
			t.Errorf("%s: the same digest as of another body", body)
		}
	}
}
