package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	root     = "horcrux/"
	services = root + "services/"
	events   = root + "pkg/events"
	uuid     = "github.com/google/uuid"
)

// longest is how many lines a file may have and still be read in one sitting.
const longest = 400

// vague are names that say nothing of what a package provides.
var vague = []string{"common", "util", "utils", "helper", "helpers", "shared", "types", "models", "misc", "base"}

// impure is what the standard library offers to look at or change the world, or to let chance decide.
var impure = []string{
	"os", "net", "syscall", "io/fs", "io/ioutil", "path/filepath", "database/sql", "log", "log/slog", "testing",
	"math/rand", "math/rand/v2", "crypto/rand", "plugin", "unsafe",
}

// check returns the breaches of all rules.
func check(packages []listed) []string {
	index := map[string]listed{}
	for _, p := range packages {
		index[p.ImportPath] = p
	}
	var breaches []string
	for _, p := range packages {
		if !strings.HasPrefix(p.ImportPath, root) {
			continue
		}
		breaches = append(breaches, borders(p)...)
		breaches = append(breaches, language(p, index)...)
		breaches = append(breaches, purity(p, index)...)
		breaches = append(breaches, clock(p, index)...)
		breaches = append(breaches, names(p)...)
		breaches = append(breaches, length(p)...)
	}
	return breaches
}

// borders: a service depends on pkg/ and never on another service; pkg/ depends on no service. Only cmd/ and test/ put
// services together.
func borders(p listed) []string {
	own, ok := service(p.ImportPath)
	if !ok && !strings.HasPrefix(p.ImportPath, root+"pkg/") {
		return nil
	}
	var out []string
	for _, dep := range p.Deps {
		if other, is := service(dep); is && other != own {
			out = append(out, fmt.Sprintf("%s: depends on %s; services speak over NATS and Postgres alone", p.ImportPath, dep))
		}
	}
	return out
}

// service returns the service that a package belongs to.
func service(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, services)
	name, _, _ := strings.Cut(rest, "/")
	return name, ok
}

// language: pkg/events is what every service and client may depend on, so it depends on next to nothing.
func language(p listed, index map[string]listed) []string {
	if !isEvents(p.ImportPath) {
		return nil
	}
	var out []string
	for _, dep := range p.Deps {
		if index[dep].Standard || dep == uuid || isEvents(dep) || dep == root+"pkg/problem" {
			continue
		}
		out = append(out, fmt.Sprintf("%s: depends on %s; events need the standard library, uuid and pkg/problem alone",
			p.ImportPath, dep))
	}
	return out
}

func isEvents(path string) bool { return path == events || strings.HasPrefix(path, events+"/") }

// purity: a decider and the events it speaks of see no world. A decider is the package of a service that has the name
// of one of pkg/events. What uuid imports to make random ids is let pass.
func purity(p listed, index map[string]listed) []string {
	if !isEvents(p.ImportPath) && !isDecider(p.ImportPath, index) {
		return nil
	}
	var out []string
	for _, path := range append([]string{p.ImportPath}, p.Deps...) {
		if index[path].Standard || path == uuid {
			continue
		}
		for _, imported := range index[path].Imports {
			if isImpure(imported) {
				out = append(out, fmt.Sprintf("%s: %s imports %s; a decider sees no world", p.ImportPath, path, imported))
			}
		}
	}
	return out
}

// clocks are the functions of package time that look at a clock or wait for it.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTicker", "NewTimer", "Sleep", "Tick"}

// clock: nor does a decider see the time; it travels in the command.
func clock(p listed, index map[string]listed) []string {
	if !isEvents(p.ImportPath) && !isDecider(p.ImportPath, index) {
		return nil
	}
	var out []string
	files := token.NewFileSet()
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.SelectorExpr); ok && slices.Contains(clocks, call.Sel.Name) {
				if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "time" {
					out = append(out, fmt.Sprintf("%s: time.%s; a decider sees no clock", files.Position(n.Pos()), call.Sel.Name))
				}
			}
			return true
		})
	}
	return out
}

func isDecider(path string, index map[string]listed) bool {
	if _, ok := service(path); !ok {
		return false
	}
	parts := strings.Split(strings.TrimPrefix(path, services), "/")
	_, named := index[events+"/"+parts[len(parts)-1]]
	return len(parts) == 2 && named
}

func isImpure(path string) bool {
	top, _, _ := strings.Cut(path, "/")
	return slices.Contains(impure, path) || ((top == "os" || top == "net") && path != "net/url" && path != "net/netip")
}

// names: a package is named for what it provides.
func names(p listed) []string {
	if slices.Contains(vague, p.Name) {
		return []string{fmt.Sprintf("%s: name it for what it provides, not %s", p.ImportPath, p.Name)}
	}
	return nil
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// length: a file can be read in one sitting.
func length(p listed) []string {
	var out []string
	for _, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			out = append(out, err.Error())
			continue
		}
		if n := bytes.Count(text, []byte("\n")); n > longest && !generated.Match(text) {
			out = append(out, fmt.Sprintf("%s: has %d lines, over %d", path, n, longest))
		}
	}
	return out
}
