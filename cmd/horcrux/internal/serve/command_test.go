package serve

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"horcrux/pkg/trace"
)

// TestLogger: what is no terminal gets JSON unless text was asked for, and the trace in either.
func TestLogger(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	ctx := trace.Continue(t.Context(), "00-"+id+"-00f067aa0ba902b7-01")
	for format, want := range map[string]string{"auto": `"trace":"` + id, "json": `"trace":"` + id, "text": "trace=" + id} {
		f, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		logger(f, format, slog.LevelInfo).InfoContext(ctx, "said")
		if b, err := os.ReadFile(f.Name()); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %s %v", format, b, err)
		}
	}
}
