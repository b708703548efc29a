package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

// column of a table of T.
type column[T any] struct {
	title string
	value func(T) string
}

// printList writes items as -o asks: the name of each, a document with all, or a table.
func printList[T any](s *session, items []T, name func(T) string, columns []column[T]) error {
	switch s.output {
	case "name":
		for _, item := range items {
			if _, err := fmt.Fprintln(s.out, name(item)); err != nil {
				return err
			}
		}
		return nil
	case "json", "yaml":
		if items == nil {
			items = []T{}
		}
		return s.document(items)
	}
	rows := make([][]string, 0, len(items)+1)
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	rows = append(rows, titles)
	for _, item := range items {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.value(item)
		}
		rows = append(rows, row)
	}
	return table(s.out, rows)
}

// printOne writes one object: its name, a document, or a table of its fields.
func printOne(s *session, name string, v any) error {
	switch s.output {
	case "name":
		_, err := fmt.Fprintln(s.out, name)
		return err
	case "json", "yaml":
		return s.document(v)
	}
	node, err := ordered(v)
	if err != nil {
		return err
	}
	var rows [][]string
	for i := 0; i+1 < len(node.Content); i += 2 {
		rows = append(rows, fieldRows(node.Content[i].Value, node.Content[i+1])...)
	}
	return table(s.out, rows)
}

// fieldRows is one row for a value, and one for each item of a list.
func fieldRows(name string, v *yaml.Node) [][]string {
	if v.Kind != yaml.SequenceNode || len(v.Content) == 0 || v.Content[0].Kind == yaml.ScalarNode {
		return [][]string{{name, inline(v)}}
	}
	var rows [][]string
	for i, item := range v.Content {
		rows = append(rows, []string{fmt.Sprintf("%s[%d]", name, i), inline(item)})
	}
	return rows
}

// inline writes a value on one line: nothing for null, a=1 b=2 for an object, and of a problem what its code does not say.
func inline(v *yaml.Node) string {
	var parts []string
	switch v.Kind {
	case yaml.SequenceNode:
		for _, item := range v.Content {
			parts = append(parts, inline(item))
		}
		return strings.Join(parts, ",")
	case yaml.MappingNode:
		coded := has(v, "code")
		for i := 0; i+1 < len(v.Content); i += 2 {
			if coded && slices.Contains([]string{"type", "title", "status"}, v.Content[i].Value) {
				continue
			}
			if text := inline(v.Content[i+1]); text != "" {
				parts = append(parts, v.Content[i].Value+"="+text)
			}
		}
		return strings.Join(parts, " ")
	}
	if v.Tag == "!!null" {
		return ""
	}
	return v.Value
}

// has says whether an object has a key.
func has(object *yaml.Node, key string) bool {
	for i := 0; i+1 < len(object.Content); i += 2 {
		if object.Content[i].Value == key {
			return true
		}
	}
	return false
}

// document writes v as JSON or YAML, its fields in the API's order.
func (s *session) document(v any) error {
	if s.output == "json" {
		e := json.NewEncoder(s.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	node, err := ordered(v)
	if err != nil {
		return err
	}
	e := yaml.NewEncoder(s.out)
	e.SetIndent(2)
	if err := e.Encode(node); err != nil {
		return err
	}
	return e.Close()
}

// ordered is v as a YAML tree that keeps the order of its JSON.
func ordered(v any) (*yaml.Node, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text.Bytes(), &doc); err != nil {
		return nil, err
	}
	node := doc.Content[0]
	plain(node)
	return node, nil
}

// plain takes JSON's quotes and braces away; the encoder puts those back that YAML needs.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}

// printable keeps control characters of the server's text from the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			if row[i] == "" {
				row[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func text[T ~string](s *T) string {
	if s == nil {
		return ""
	}
	return string(*s)
}
