// Generate makes codes_gen.go and docs/errors.md of catalogue.yaml. It runs in pkg/problem, by go generate.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/format"
	"os"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"
)

type row struct {
	Code   string `yaml:"code"`
	Status int    `yaml:"status"`
	Exit   int    `yaml:"exit"`
	Title  string `yaml:"title"`
	Mend   string `yaml:"mend"`
}

// Name is the row's Go name: not_found → NotFound.
func (r row) Name() string {
	var b strings.Builder
	for _, word := range strings.Split(r.Code, "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

var (
	//go:embed codes.go.tmpl
	codesText string
	//go:embed errors.md.tmpl
	docsText string
)

func main() {
	if err := generate("catalogue.yaml", "codes_gen.go", "../../docs/errors.md"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(catalogue, code, docs string) error {
	rows, err := read(catalogue)
	if err != nil {
		return err
	}
	source, err := render(codesText, rows)
	if err != nil {
		return err
	}
	if source, err = format.Source(source); err != nil {
		return fmt.Errorf("format %s: %w", code, err)
	}
	page, err := render(docsText, rows)
	if err != nil {
		return err
	}
	if err := os.WriteFile(code, source, 0o644); err != nil {
		return err
	}
	return os.WriteFile(docs, page, 0o644)
}

// read refuses a catalogue with a key it does not know, a code given twice, or a row that is not whole.
func read(path string) ([]row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rows []row
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(&rows); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if r.Code == "" || r.Status < 400 || r.Status > 599 || r.Exit < 1 || r.Title == "" || r.Mend == "" || seen[r.Code] {
			return nil, fmt.Errorf("%s: row %q is not whole or given twice", path, r.Code)
		}
		seen[r.Code] = true
	}
	return rows, nil
}

func render(text string, rows []row) ([]byte, error) {
	t, err := template.New("").Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, rows)
	return b.Bytes(), err
}
