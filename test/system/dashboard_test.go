package system_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"horcrux/test/instance"
)

var (
	metricName = regexp.MustCompile(`\b(horcrux|go|process)_[a-z0-9_]+`)
	sampleName = regexp.MustCompile(`(?m)^[a-z][a-z0-9_]*`)
)

// dashboard fails where the dashboard draws what a server that has done something does not tell.
func dashboard(t *testing.T, i *instance.Instance) {
	text, err := os.ReadFile(filepath.Join(instance.Root(), "deploy", "grafana", "horcrux.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Inputs []struct{ Name string } `json:"__inputs"`
		Panels []struct {
			Type, Title string
			Datasource  struct{ UID string }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Inputs) != 1 || doc.Inputs[0].Name != "DS_PROMETHEUS" {
		t.Errorf("it asks for %+v", doc.Inputs)
	}
	told := map[string]bool{}
	for _, name := range sampleName.FindAllString(string(i.Do("GET", "/metrics", nil).Bytes), -1) {
		told[name] = true
	}
	drawn := 0
	for _, p := range doc.Panels {
		if p.Type != "row" && (p.Datasource.UID != "${DS_PROMETHEUS}" || len(p.Targets) == 0) {
			t.Errorf("%q draws from %q %d expressions", p.Title, p.Datasource.UID, len(p.Targets))
		}
		for _, target := range p.Targets {
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				if drawn++; !told[name] {
					t.Errorf("%q draws %s, which /metrics does not have", p.Title, name)
				}
			}
		}
	}
	if drawn == 0 {
		t.Error("it draws nothing")
	}
}
