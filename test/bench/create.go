package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
)

// virshTime bounds one call of virsh.
const virshTime = time.Minute

// create compares creating and starting a machine over REST, until it runs, with virsh define and virsh start of the
// same XML at the same libvirtd. The machine has neither disk nor boot device, and is gone before the next.
func create(ctx context.Context, b *bench, r *result) (err error) {
	h, err := startHorcrux(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r.fsync = "private Postgres and libvirtd"
	v := h.virsh()
	defer func() { err = errors.Join(err, v.destroyAll()) }() // before h stops: guests outlive it
	t, err := h.template(ctx, v)
	if err != nil {
		return err
	}
	r.series, err = interleave(ctx, 1, b.of(60, 3),
		side{"REST create with start", ms, h.createOnce},
		side{"virsh define, virsh start", ms, func(ctx context.Context, turn int) (float64, error) { return v.createOnce(ctx, t, turn) }},
	)
	if err != nil {
		return err
	}
	rest, bare := r.series[0], r.series[1]
	r.ratios = []ratio{
		atMost("REST ÷ virsh, p50", rest.p50()/bare.p50(), 1.25, 1.12),
		reported("REST ÷ virsh, p95", rest.p95()/bare.p95()),
	}
	return nil
}

// horcrux is the program as it is built for users, on a data dir of its own with a libvirtd of its own.
type horcrux struct {
	*process
	dir, data string
}

// startHorcrux builds it, starts it and waits until it is ready.
func startHorcrux(ctx context.Context, b *bench) (_ *horcrux, err error) {
	dir, err := tempDir(b.dir)
	if err != nil {
		return nil, err
	}
	h := &horcrux{dir: dir, data: filepath.Join(dir, "d")}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	program := filepath.Join(dir, "horcrux")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "horcrux/cmd/horcrux")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build horcrux: %w\n%s", err, out)
	}
	h.process, err = launch(b.also, h.data, program, "serve", "--data-dir", h.data, "--listen", "", "--libvirt-private", "yes")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	return h, h.ready(ctx)
}

// virsh speaks to its libvirtd.
func (h *horcrux) virsh() virsh {
	return virsh{"qemu+unix:///system?socket=" + url.QueryEscape(filepath.Join(h.data, "libvirt", "libvirt-sock"))}
}

func (h *horcrux) close() error {
	var err error
	if h.process != nil {
		err = h.stop()
	}
	return errors.Join(err, os.RemoveAll(h.dir))
}

func bareMachine(name string) map[string]any {
	return map[string]any{"name": name, "cpus": 1, "memory_mb": 32, "disks": []any{}, "networks": []any{}, "start": true}
}

// createOnce measures one create with start and removes the machine again.
func (h *horcrux) createOnce(ctx context.Context, turn int) (float64, error) {
	name := fmt.Sprintf("rest-%d", turn)
	took, err := millis(func() error {
		_, err := h.must(ctx, "POST", "/api/vms?wait=60", bareMachine(name))
		return err
	})
	return took, errors.Join(err, h.remove(ctx, name))
}

func (h *horcrux) remove(ctx context.Context, name string) error {
	_, err := h.must(context.WithoutCancel(ctx), "DELETE", "/api/vms/"+name+"?force=true&wait=60", nil)
	return err
}

// template is the XML of a machine made over REST, for virsh to make such a one.
type template struct{ xml, name, id string }

func (h *horcrux) template(ctx context.Context, v virsh) (template, error) {
	const name = "template"
	op, err := h.must(ctx, "POST", "/api/vms?wait=60", bareMachine(name))
	if err != nil {
		return template{}, err
	}
	xml, err := v.run(ctx, "dumpxml", "--inactive", name)
	return template{xml, name, op.ResourceID.String()}, errors.Join(err, h.remove(ctx, name))
}

// virsh is libvirt's own client on one libvirtd.
type virsh struct{ uri string }

func (v virsh) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, virshTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "virsh", append([]string{"--quiet", "--connect", v.uri}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("virsh %s: %w: %s", args[0], err, out)
	}
	return string(out), nil
}

// destroyAll ends the domains that a measurement that failed has left.
func (v virsh) destroyAll() error {
	ctx := context.Background() // each call has its own deadline
	names, err := v.run(ctx, "list", "--name")
	errs := []error{err}
	for _, name := range strings.Fields(names) {
		_, err := v.run(ctx, "destroy", name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// createOnce measures define and start of a template under a name and id of its own, and removes the domain again.
func (v virsh) createOnce(ctx context.Context, t template, turn int) (took float64, err error) {
	name := fmt.Sprintf("virsh-%d", turn)
	f, err := os.CreateTemp("", "hxbench-*.xml")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(strings.NewReplacer(t.id, uuid.NewString(), ">"+t.name+"<", ">"+name+"<").Replace(t.xml))
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	took, err = millis(func() error {
		if _, err := v.run(ctx, "define", f.Name()); err != nil {
			return err
		}
		_, err := v.run(ctx, "start", name)
		return err
	})
	ctx = context.WithoutCancel(ctx)
	_, destroyed := v.run(ctx, "destroy", name)
	_, undefined := v.run(ctx, "undefine", name)
	return took, errors.Join(err, destroyed, undefined)
}
