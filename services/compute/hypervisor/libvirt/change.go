//go:build !no_qemu

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// Define implements hypervisor.Driver.
func (d *Driver) Define(ctx context.Context, spec hypervisor.Spec) (hypervisor.Domain, error) {
	dom, err := d.define(ctx, spec)
	if err != nil {
		return hypervisor.Domain{}, fmt.Errorf("define domain %s: %w", spec.ID, err)
	}
	return dom, nil
}

func (d *Driver) define(ctx context.Context, spec hypervisor.Spec) (none hypervisor.Domain, err error) {
	s, err := d.session(ctx)
	if err != nil {
		return none, err
	}
	wanted, err := document(spec, s.kind, d.opts.ConsoleDir)
	if err != nil {
		return none, err
	}
	text, err := marshal(wanted)
	if err != nil {
		return none, err
	}
	old, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (old hypervisor.Domain, err error) {
		if old, err = observe(l, spec.ID); err == nil {
			old.Managed, err = s.marks.of(l, spec.ID)
		}
		return old, err
	})
	replaces := err == nil
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
	case err != nil:
		return none, err
	case !old.Managed:
		return none, fmt.Errorf("%w: domain %s is not ours", hypervisor.ErrAlreadyExists, spec.ID)
	case active(old.State):
		return none, fmt.Errorf("%w: domain %s is %s", hypervisor.ErrConflict, spec.ID, old.State)
	}

	_, err = exchange(ctx, s, act, func(l *golibvirt.Libvirt) (struct{}, error) {
		if replaces && old.Name != spec.Name { // libvirt takes no other name for a UUID that it knows
			if err := l.DomainUndefineFlags(handle(spec.ID), s.undefineFlags()); err != nil {
				return struct{}{}, err
			}
		}
		dom, err := l.DomainDefineXML(text)
		if err != nil {
			return struct{}{}, err
		}
		if replaces || spec.Autostart { // libvirt keeps the flag of what is replaced
			err = l.DomainSetAutostart(dom, number(spec.Autostart))
		}
		return struct{}{}, err
	})
	if errors.Is(err, hypervisor.ErrInvalid) && d.nameTaken(ctx, spec) {
		return none, fmt.Errorf("%w: %w", hypervisor.ErrAlreadyExists, errors.Unwrap(err))
	}
	if err != nil {
		return none, err
	}
	return hypervisor.Domain{
		ID: spec.ID, Name: spec.Name, NativeID: spec.Name, State: hypervisor.Off,
		Autostart: spec.Autostart, Managed: true,
	}, nil
}

// nameTaken looks whether it was the name that made libvirt refuse: it has no number for that.
func (d *Driver) nameTaken(ctx context.Context, spec hypervisor.Spec) bool {
	holder, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (golibvirt.Domain, error) {
		return l.DomainLookupByName(spec.Name)
	})
	return err == nil && uuid.UUID(holder.UUID) != spec.ID
}

// Undefine implements hypervisor.Driver.
func (d *Driver) Undefine(ctx context.Context, id uuid.UUID) error {
	err := d.undefine(ctx, id)
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return fmt.Errorf("undefine domain %s: %w", id, err)
	}
	return nil
}

func (d *Driver) undefine(ctx context.Context, id uuid.UUID) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	dom, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) { return observe(l, id) })
	if err != nil {
		return err
	}
	if active(dom.State) { // libvirt would leave a domain that vanishes when it stops
		return fmt.Errorf("%w: domain %s is %s", hypervisor.ErrConflict, id, dom.State)
	}
	_, err = exchange(ctx, s, act, func(l *golibvirt.Libvirt) (struct{}, error) {
		return struct{}{}, l.DomainUndefineFlags(handle(id), s.undefineFlags())
	})
	if err != nil {
		return err
	}
	if d.opts.ConsoleDir == "" {
		return nil
	}
	path := consoleLog(d.opts.ConsoleDir, id)
	for _, log := range []string{path, path + ".0", path + ".1", path + ".2"} { // virtlogd, where there is one, keeps three
		if err := os.Remove(log); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: remove console log: %w", hypervisor.ErrUnknown, err)
		}
	}
	return nil
}

// undefineFlags tell libvirt to forget everything. The test driver knows the first two, TPM state came with 8.9.
func (s *session) undefineFlags() golibvirt.DomainUndefineFlagsValues {
	flags := golibvirt.DomainUndefineManagedSave | golibvirt.DomainUndefineSnapshotsMetadata
	if s.kind == "test" {
		return flags
	}
	flags |= golibvirt.DomainUndefineNvram | golibvirt.DomainUndefineCheckpointsMetadata
	if s.daemon >= 8_009_000 {
		flags |= golibvirt.DomainUndefineTpm
	}
	return flags
}

// Start implements hypervisor.Driver.
func (d *Driver) Start(ctx context.Context, id uuid.UUID) error {
	err := d.do(ctx, func(l *golibvirt.Libvirt) error { return ofDomain(l.DomainCreate(handle(id))) })
	if state, ok := d.afterRefusal(ctx, id, err); ok && state == hypervisor.Running {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start domain %s: %w", id, err)
	}
	return nil
}

// Destroy implements hypervisor.Driver.
func (d *Driver) Destroy(ctx context.Context, id uuid.UUID) error {
	err := d.doAs(ctx, force, func(l *golibvirt.Libvirt) error { return l.DomainDestroy(handle(id)) })
	if state, ok := d.afterRefusal(ctx, id, err); ok && !active(state) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy domain %s: %w", id, err)
	}
	return nil
}

// Shutdown implements hypervisor.Driver.
func (d *Driver) Shutdown(ctx context.Context, id uuid.UUID) error {
	err := d.doAs(ctx, force, func(l *golibvirt.Libvirt) error { return l.DomainShutdown(handle(id)) })
	if state, ok := d.afterRefusal(ctx, id, err); ok && state != hypervisor.Running {
		err = fmt.Errorf("%w: it is %s", hypervisor.ErrConflict, state)
	}
	if err != nil {
		return fmt.Errorf("shut domain %s down: %w", id, err)
	}
	return nil
}

// Pause implements hypervisor.Driver.
func (d *Driver) Pause(ctx context.Context, id uuid.UUID) error {
	return d.power(ctx, id, "pause", hypervisor.Paused, (*golibvirt.Libvirt).DomainSuspend)
}

// Resume implements hypervisor.Driver.
func (d *Driver) Resume(ctx context.Context, id uuid.UUID) error {
	return d.power(ctx, id, "resume", hypervisor.Running, (*golibvirt.Libvirt).DomainResume)
}

// Reset implements hypervisor.Driver.
func (d *Driver) Reset(ctx context.Context, id uuid.UUID) error {
	return d.power(ctx, id, "reset", "", func(l *golibvirt.Libvirt, dom golibvirt.Domain) error { return l.DomainReset(dom, 0) })
}

// Reboot implements hypervisor.Driver.
func (d *Driver) Reboot(ctx context.Context, id uuid.UUID) error {
	return d.power(ctx, id, "reboot", "", func(l *golibvirt.Libvirt, dom golibvirt.Domain) error { return l.DomainReboot(dom, 0) })
}

// power changes an active domain, which may be in the state already that is wanted.
func (d *Driver) power(ctx context.Context, id uuid.UUID, verb string, wanted hypervisor.State, f func(*golibvirt.Libvirt, golibvirt.Domain) error) error {
	err := d.do(ctx, func(l *golibvirt.Libvirt) error { return f(l, handle(id)) })
	if state, ok := d.afterRefusal(ctx, id, err); ok {
		switch {
		case state == wanted:
			return nil
		case !active(state):
			err = fmt.Errorf("%w: it is %s", hypervisor.ErrConflict, state)
		}
	}
	if err != nil {
		return fmt.Errorf("%s domain %s: %w", verb, id, err)
	}
	return nil
}

// afterRefusal looks where a domain is whose hypervisor would not change it: libvirt has a number for "not in this
// state", but not all of its drivers use it.
func (d *Driver) afterRefusal(ctx context.Context, id uuid.UUID, err error) (hypervisor.State, bool) {
	if !refused(err) {
		return "", false
	}
	dom, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) { return observe(l, id) })
	return dom.State, err == nil
}

func refused(err error) bool {
	return errors.Is(err, hypervisor.ErrConflict) || errors.Is(err, hypervisor.ErrInvalid)
}

// SetAutostart implements hypervisor.Driver.
func (d *Driver) SetAutostart(ctx context.Context, id uuid.UUID, on bool) error {
	if err := d.do(ctx, func(l *golibvirt.Libvirt) error { return l.DomainSetAutostart(handle(id), number(on)) }); err != nil {
		return fmt.Errorf("set autostart of domain %s: %w", id, err)
	}
	return nil
}

// SetDescription implements hypervisor.Driver.
func (d *Driver) SetDescription(ctx context.Context, id uuid.UUID, text string) error {
	var value golibvirt.OptString // none removes it
	if text != "" {
		value = golibvirt.OptString{legible(text)}
	}
	set := func(impact golibvirt.DomainModificationImpact) error {
		return d.do(ctx, func(l *golibvirt.Libvirt) error {
			return l.DomainSetMetadata(handle(id), int32(golibvirt.DomainMetadataDescription), value, nil, nil, impact)
		})
	}
	err := set(golibvirt.DomainAffectLive | golibvirt.DomainAffectConfig)
	if refused(err) { // it does not run
		err = set(golibvirt.DomainAffectConfig)
	}
	if err != nil {
		return fmt.Errorf("describe domain %s: %w", id, err)
	}
	return nil
}

// legible puts U+FFFD in place of what XML cannot hold, as marshalling does: libvirt writes all that it is told, and a
// domain whose file it cannot read again is lost.
func legible(text string) string {
	return strings.Map(func(r rune) rune {
		if unsayable(r) {
			return utf8.RuneError
		}
		return r
	}, text)
}

func active(s hypervisor.State) bool { return s == hypervisor.Running || s == hypervisor.Paused }

func number(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

func consoleLog(dir string, id uuid.UUID) string { return filepath.Join(dir, id.String()+".log") }
