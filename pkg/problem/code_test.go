package problem_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"horcrux/pkg/problem"
)

// What was generated says what the catalogue says.
func TestCatalogue(t *testing.T) {
	text, err := os.ReadFile("catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Code        problem.Code
		Status      int
		Exit        int
		Title, Mend string
	}
	if err := yaml.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(problem.Codes()), len(rows); got != want {
		t.Errorf("%d codes were generated of %d rows; run go generate ./pkg/problem", got, want)
	}
	for _, r := range rows {
		if r.Code.Status() != r.Status || r.Code.Exit() != r.Exit || r.Code.Title() != r.Title || r.Code.Mend() != r.Mend {
			t.Errorf("%s is not as in the catalogue; run go generate ./pkg/problem", r.Code)
		}
		if !strings.Contains(string(page), "`"+string(r.Code)+"`") {
			t.Errorf("docs/errors.md lacks %s; run go generate ./pkg/problem", r.Code)
		}
	}
}

func TestUnknownCodeIsInternal(t *testing.T) {
	unknown := problem.Code("of_a_newer_server")
	if unknown.Status() != 500 || unknown.Exit() != 1 || unknown.Title() == "" {
		t.Errorf("status %d, exit %d, title %q", unknown.Status(), unknown.Exit(), unknown.Title())
	}
}
