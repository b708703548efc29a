package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"
)

// ratio is a figure that something may be demanded of. A bound of 0 is none.
type ratio struct {
	name     string
	value    float64
	required float64
	aim      float64
	least    bool // the bounds are lower ones
}

func atMost(name string, value, required, aim float64) ratio {
	return ratio{name: name, value: value, required: required, aim: aim}
}

func atLeast(name string, value, required, aim float64) ratio {
	return ratio{name: name, value: value, required: required, aim: aim, least: true}
}

// reported is a figure of which nothing is demanded.
func reported(name string, value float64) ratio { return ratio{name: name, value: value} }

func (r ratio) keeps(bound float64) bool {
	if r.least {
		return r.value >= bound
	}
	return r.value <= bound
}

func (r ratio) verdict() string {
	switch {
	case r.required == 0:
		return ""
	case !r.keeps(r.required):
		return "MISSED"
	case r.aim != 0 && r.keeps(r.aim):
		return "aim met"
	}
	return "met"
}

func (r ratio) bound(b float64) string {
	switch {
	case b == 0:
		return ""
	case r.least:
		return "≥ " + figure(b)
	}
	return "≤ " + figure(b)
}

// result is what one measurement found.
type result struct {
	name   string
	series []series
	ratios []ratio
	notes  []string
	begin  time.Time
	before machine
	after  machine
	fsync  string
}

func (r *result) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *result) missed() bool {
	for _, q := range r.ratios {
		if q.verdict() == "MISSED" {
			return true
		}
	}
	return false
}

func figure(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// table writes the result for a person.
func (r *result) table(w io.Writer) error {
	fmt.Fprintf(w, "\n%s  (%s; load %s before, %s after, on %d CPUs)\n", r.name, r.fsync, r.before.load, r.after.load, r.before.cpus)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  \tunit\tn\tp50\tp95\tp99")
	for _, s := range r.series {
		fmt.Fprintf(t, "  %s\t%s\t%d\t%s\t%s\t%s\n", s.name, s.unit, len(s.values), figure(s.p50()), figure(s.p95()), figure(s.p99()))
	}
	fmt.Fprintln(t, "  \tfound\trequired\taim\t\t")
	for _, q := range r.ratios {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t\n", q.name, figure(q.value), q.bound(q.required), q.bound(q.aim), q.verdict())
	}
	for _, n := range r.notes {
		fmt.Fprintf(t, "  note: %s\n", n)
	}
	return t.Flush()
}

// save writes the result for programs, into <out>/<date>-<name>.csv; a small run gets a name of its own.
func (r *result) save(out, size string) (err error) {
	name := r.begin.Format(time.DateOnly) + "-" + r.name
	if size != full {
		name += "-" + size
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(out, name+".csv"))
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	records := [][]string{{
		"time", "commit", "size", "fsync", "cpus", "load_before", "load_after",
		"what", "name", "unit", "n", "p50", "p95", "p99", "value", "required", "aim", "verdict",
	}}
	common := []string{
		r.begin.UTC().Format(time.RFC3339), r.before.commit, size, r.fsync, strconv.Itoa(r.before.cpus), r.before.load, r.after.load,
	}
	add := func(fields ...string) { records = append(records, append(common[:len(common):len(common)], fields...)) }
	for _, s := range r.series {
		add("series", s.name, s.unit, strconv.Itoa(len(s.values)), figure(s.p50()), figure(s.p95()), figure(s.p99()), "", "", "", "")
	}
	for _, q := range r.ratios {
		add("ratio", q.name, "", "", "", "", "", figure(q.value), q.bound(q.required), q.bound(q.aim), q.verdict())
	}
	if err := w.WriteAll(records); err != nil { // it flushes
		return err
	}
	return f.Close()
}
