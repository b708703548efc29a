package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// events writes lines of test2json.
func events(lines ...[4]string) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, `{"Action":%q,"Package":%q,"Test":%q,"Output":%q}`+"\n", l[0], l[1], l[2], l[3])
	}
	return b.String()
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      string
		require []string
		ok      bool
		want    []string
		not     []string
	}{
		{
			name: "pass",
			in: events([4]string{"output", "horcrux/a", "T", "=== RUN T\n"}, [4]string{"pass", "horcrux/a", "T"},
				[4]string{"pass", "horcrux/a"}),
			ok: true, want: []string{"ok    a", "1 passed, 0 failed, 0 skipped"}, not: []string{"RUN", "skipped:"},
		},
		{
			name: "failure shows its output alone",
			in: events([4]string{"output", "horcrux/a", "Good", "quiet\n"}, [4]string{"pass", "horcrux/a", "Good"},
				[4]string{"output", "horcrux/a", "Bad", "    a_test.go:1: loud\n"}, [4]string{"fail", "horcrux/a", "Bad"},
				[4]string{"fail", "horcrux/a"}),
			want: []string{"FAIL  a", "loud", "1 passed, 1 failed", "slowest:\n     0.0s a Good", "failed:\n  a Bad\n      loud\n"}, not: []string{"quiet"},
		},
		{
			name: "panic in a test that never ends",
			in:   events([4]string{"output", "horcrux/a", "T", "panic: oh\n"}, [4]string{"fail", "horcrux/a"}),
			want: []string{"panic: oh", "1 failed"},
		},
		{
			name: "build failure",
			in: `{"ImportPath":"horcrux/a [horcrux/a.test]","Action":"build-output","Output":"a.go:1: oops\n"}` + "\n" +
				events([4]string{"fail", "horcrux/a"}),
			want: []string{"a.go:1: oops", "1 failed"},
		},
		{
			name: "skip with its reason",
			in: events([4]string{"output", "horcrux/a", "T", "    a_test.go:1: real: lvm: no device-mapper\n"},
				[4]string{"output", "horcrux/a", "T", "--- SKIP: T (0.00s)\n"},
				[4]string{"skip", "horcrux/a", "T"}, [4]string{"pass", "horcrux/a"}),
			require: []string{"libvirt"}, ok: true, want: []string{"1 × real: lvm: no device-mapper", "1 skipped"},
		},
		{
			name: "skip of a required part",
			in: events([4]string{"output", "horcrux/a", "T", "    a_test.go:1: real: libvirt: gone\n"},
				[4]string{"skip", "horcrux/a", "T"}, [4]string{"pass", "horcrux/a"}),
			require: []string{"libvirt"}, want: []string{"libvirt is set up on this machine"},
		},
		{name: "nothing", in: "", want: []string{"no test ran"}},
		{name: "words of go itself", in: "go: cannot find module\n", want: []string{"go: cannot find module"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if ok := r.summarise(c.require, time.Second); ok != c.ok {
				t.Errorf("ok is %v", ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q:\n%s", want, &out)
				}
			}
			for _, not := range c.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("says %q:\n%s", not, &out)
				}
			}
		})
	}
}
