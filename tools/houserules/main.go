// Command houserules holds the code against the rules that docs/architecture.md gives and that no linter knows. It is
// run in the root of the workspace and prints each breach; the exit status is 1 if there is one.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// listed is a package of ours, or one that ours depend on, as "go list" tells it.
type listed struct {
	ImportPath string
	Name       string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func main() {
	packages, err := list()
	if err != nil {
		fmt.Fprintln(os.Stderr, "houserules:", err)
		os.Exit(1)
	}
	breaches := check(packages)
	for _, b := range breaches {
		fmt.Println(b)
	}
	if len(breaches) > 0 {
		os.Exit(1)
	}
}

// list returns every package of the workspace and what they depend on.
func list() ([]listed, error) {
	modules, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}/...").Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules: %w", err)
	}
	args := append([]string{"list", "-deps", "-json=ImportPath,Name,Dir,Standard,GoFiles,Imports,Deps"},
		strings.Fields(string(modules))...)
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the packages: %w", err)
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
}
