package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// event is a line of "go test -json" (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string // "" for the package as a whole
	Elapsed    float64
	Output     string
}

// test is what is known of a test, or under an empty name of its package.
type test struct {
	output   strings.Builder
	messages []string // the first line of each thing that it logged
}

// lasted is how long a test took, its subtests included.
type lasted struct {
	test    string
	seconds float64
}

const (
	mostSlow     = 12 // tests that are listed for their time
	mostMessages = 12 // of a failed test, repeated at the end: what it logged last
)

// pkg is a package under test.
type pkg struct {
	tests   map[string]*test
	passed  int
	failed  []string
	skipped int
}

type report struct {
	to       io.Writer
	packages map[string]*pkg
	builds   map[string]*strings.Builder
	skips    map[string]int // reason → how often
	passed   int
	failed   int
	skipped  int
	ran      int // packages with tests
	slow     []lasted
	failures []string // names of tests with their messages
}

func newReport(to io.Writer) *report {
	return &report{
		to: to, packages: map[string]*pkg{}, builds: map[string]*strings.Builder{}, skips: map[string]int{},
	}
}

// read follows the events and writes a line for each package as it ends.
func (r *report) read(from io.Reader) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.to, lines.Text()) // of go itself
			continue
		}
		r.handle(e)
	}
	return lines.Err()
}

func (r *report) handle(e event) {
	if e.Action == "build-output" {
		b := r.builds[e.ImportPath]
		if b == nil {
			b = &strings.Builder{}
			r.builds[e.ImportPath] = b
		}
		b.WriteString(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		r.packages[e.Package] = p
	}
	t := p.tests[e.Test]
	if t == nil {
		t = &test{}
		p.tests[e.Test] = t
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
		if text, ok := message(e.Output); ok {
			t.messages = append(t.messages, text)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
			delete(r.packages, e.Package)
			return
		}
		r.endTest(e, p, t)
	}
}

func (r *report) endTest(e event, p *pkg, t *test) {
	name := strings.TrimPrefix(e.Package, "horcrux/") + " " + e.Test
	if !strings.Contains(e.Test, "/") {
		r.slow = append(r.slow, lasted{name, e.Elapsed})
	}
	switch e.Action {
	case "pass":
		r.passed++
		p.passed++
	case "fail":
		r.failed++
		p.failed = append(p.failed, e.Test)
		r.failures = append(r.failures, "  "+name+"\n"+indent(strings.Join(last(t.messages, mostMessages), "\n")))
		return // its output is still wanted
	case "skip":
		r.skipped++
		p.skipped++
		// The last message before a skip is its reason.
		r.skips[cmp.Or(strings.Join(last(t.messages, 1), ""), "no reason given")]++
	}
	t.output.Reset()
}

func (r *report) endPackage(e event, p *pkg) {
	name := strings.TrimPrefix(e.Package, "horcrux/")
	if e.Action == "fail" {
		fmt.Fprintf(r.to, "FAIL  %s  %.1fs\n", name, e.Elapsed)
		for path, b := range r.builds {
			if path == e.Package || strings.HasPrefix(path, e.Package+" ") || strings.HasPrefix(path, e.Package+"_test ") {
				fmt.Fprint(r.to, indent(b.String()))
			}
		}
		for _, failed := range p.failed {
			fmt.Fprint(r.to, indent(p.tests[failed].output.String()))
		}
		// A panic or a time-out is output of a test that never ended, or of the package.
		for _, unended := range slices.Sorted(maps.Keys(p.tests)) {
			if !slices.Contains(p.failed, unended) {
				fmt.Fprint(r.to, indent(p.tests[unended].output.String()))
			}
		}
		if len(p.failed) == 0 {
			r.failed++ // it did not build, or ended outside any test
		}
		r.ran++
		return
	}
	if p.passed+p.skipped == 0 {
		return // nothing to test
	}
	r.ran++
	skipped := ""
	if p.skipped > 0 {
		skipped = fmt.Sprintf(", %d skipped", p.skipped)
	}
	fmt.Fprintf(r.to, "ok    %s  %.1fs  %d passed%s\n", name, e.Elapsed, p.passed, skipped)
}

// summarise writes what was slow, the skips, the failures once more, which lie far above by then, and the counts, and
// returns whether the run is good.
func (r *report) summarise(require []string, took time.Duration) bool {
	ok := r.failed == 0
	slices.SortFunc(r.slow, func(a, b lasted) int { return cmp.Compare(b.seconds, a.seconds) })
	if len(r.slow) > 0 {
		fmt.Fprintln(r.to, "\nslowest:")
	}
	for _, t := range r.slow[:min(mostSlow, len(r.slow))] {
		fmt.Fprintf(r.to, "  %6.1fs %s\n", t.seconds, t.test)
	}
	if len(r.skips) > 0 {
		fmt.Fprintln(r.to, "\nskipped:")
	}
	for _, reason := range slices.Sorted(maps.Keys(r.skips)) {
		fmt.Fprintf(r.to, "  %3d × %s\n", r.skips[reason], reason)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.skips)) {
		if part, is := realPart(reason); is && slices.Contains(require, part) {
			fmt.Fprintf(r.to, "\n%s is set up on this machine and must not be skipped\n", part)
			ok = false
		}
	}
	if len(r.failures) > 0 {
		fmt.Fprint(r.to, "\nfailed:\n"+strings.Join(r.failures, ""))
	}
	if r.ran == 0 {
		fmt.Fprintln(r.to, "\nno test ran")
		ok = false
	}
	fmt.Fprintf(r.to, "\n%d passed, %d failed, %d skipped in %s\n", r.passed, r.failed, r.skipped, took.Round(time.Second))
	return ok
}

// last returns the last n of what there is.
func last(all []string, n int) []string { return all[max(0, len(all)-n):] }

// realPart returns the part that a skip of a real thing names.
func realPart(reason string) (string, bool) {
	rest, ok := strings.CutPrefix(reason, "real: ")
	part, _, _ := strings.Cut(rest, ":")
	return part, ok
}

// message returns what a test logged, from a line "    file_test.go:12: text".
func message(line string) (string, bool) {
	rest := strings.TrimLeft(line, " ")
	if rest == line {
		return "", false
	}
	place, text, ok := strings.Cut(rest, ": ")
	if !ok || !strings.Contains(place, ".go:") {
		return "", false
	}
	return strings.TrimSpace(text), true
}

func indent(text string) string {
	if text = strings.TrimRight(text, "\n"); text == "" {
		return ""
	}
	return "      " + strings.ReplaceAll(text, "\n", "\n      ") + "\n"
}
