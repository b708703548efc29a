package dir_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/dir"
)

// The maker of volumes is killed at some instant, again and again: whatever it was doing, each volume is whole or none,
// and a repetition makes it and leaves nothing else.
func TestKilledMaker(t *testing.T) {
	needQemuImg(t)
	p := newPlace(t)
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HORCRUX_TEST_MAKER="+p.pool.Path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		// The ids that it prints before each create. It dies between one of its syscalls and the next.
		var ids []uuid.UUID
		line := make([]byte, 37)
		for len(ids) < 4+3*round {
			if _, err := io.ReadFull(out, line); err != nil {
				t.Fatalf("the maker ended early: %v", err)
			}
			ids = append(ids, uuid.MustParse(string(line[:36])))
		}
		must(t, cmd.Process.Kill())
		rest, err := io.ReadAll(out)
		must(t, err)
		for ; len(rest) >= 37; rest = rest[37:] {
			ids = append(ids, uuid.MustParse(string(rest[:36])))
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Fatalf("wait: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i, id := range ids {
			want := makerSpec(id, i)
			if v, err := p.Volume(ctx, id); err == nil {
				if v.SizeBytes != want.SizeBytes || v.Format != want.Format {
					t.Errorf("volume %+v of %+v", v, want)
				}
			} else if !errors.Is(err, backend.ErrNotFound) {
				t.Errorf("volume %s: %v", id, err)
			}
			v, err := p.Create(ctx, want)
			must(t, err)
			run(t, "qemu-img", "info", "-f", v.Format, v.Path)
		}
		if list, err := p.Volumes(ctx); err != nil || len(list) != len(ids) {
			t.Errorf("%d volumes, %v; want %d", len(list), err, len(ids))
		}
		if files := p.files(t); len(files) != len(ids) {
			t.Errorf("files %v, want %d", files, len(ids))
		}
		for _, id := range ids {
			must(t, p.Delete(ctx, id))
		}
	}
}

// makerSpec is what the maker makes as its i-th volume.
func makerSpec(id uuid.UUID, i int) backend.Spec {
	return backend.Spec{ID: id, SizeBytes: mib, Format: []string{backend.Raw, backend.QCOW2}[i%2], Thin: i%3 != 0}
}

// makeVolumes makes volumes until it is killed. The pool's id is in its stamp.
func makeVolumes(path string) {
	b, err := os.ReadFile(filepath.Join(path, stamp))
	if err != nil {
		panic(err)
	}
	pool, err := dir.Driver{}.Open(backend.Pool{ID: uuid.MustParse(strings.TrimSpace(string(b))), Path: path})
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		id := events.NewID()
		os.Stdout.WriteString(id.String() + "\n")
		if _, err := pool.Create(context.Background(), makerSpec(id, i)); err != nil {
			panic(err)
		}
	}
}
