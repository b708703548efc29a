package client

import (
	"errors"
	"strings"
	"testing"
)

// FuzzEachMessage: whatever a server sends as a stream ends in errBroken, and its messages are what it sent.
func FuzzEachMessage(f *testing.F) {
	f.Add("id: AAcB\nevent: vm.started\ndata: {}\n\n: \n\n")
	f.Add("data: a\ndata: b\n\ndata:c\r\n\r\n")
	f.Add(strings.Repeat("x", 1<<16))
	f.Fuzz(func(t *testing.T, text string) {
		err := eachMessage(strings.NewReader(text), func() {}, func(data string) error {
			for line := range strings.SplitSeq(data, "\n") {
				if !strings.Contains(text, line) {
					t.Errorf("%q was not sent", line)
				}
			}
			return nil
		})
		if !errors.Is(err, errBroken) {
			t.Errorf("ended with %v", err)
		}
	})
}
