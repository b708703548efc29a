// Package backendtest is the suite that every storage backend passes.
package backendtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/services/storage/backend"
)

// MiB is the unit in which the suite makes volumes.
const MiB = 1 << 20

// Place is where one test makes its pools.
type Place struct {
	Driver backend.Driver
	Pool   backend.Pool // not yet made
	// Image is the path of an image of 1 MiB, "" where the backend has no images.
	Image string
	// Vanish takes the pool away, as an unmounted file system would be; nil where that cannot be done.
	Vanish func(t *testing.T)
}

// Run runs the suite. newPlace returns a fresh place, which it clears away with t.Cleanup.
func Run(t *testing.T, newPlace func(t *testing.T) Place) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"MakingAPoolTwiceIsOnce", testInitTwice},
		{"CreateThenObserve", testCreate},
		{"CreateTwiceIsOnce", testCreateTwice},
		{"CreateAtTheSameTimeIsOnce", testCreateConcurrently},
		{"CreateOtherwiseIsRefused", testCreateOtherwise},
		{"ResizeTwiceIsOnce", testResize},
		{"DeleteTwiceIsOnce", testDelete},
		{"ListIsOrderedAndWhole", testList},
		{"InvalidSpecs", testInvalid},
		{"ReservedVolumeTakesItsSpace", testThick},
		{"ReservingMoreThanThereIs", testExhausted},
		{"ImageFillsTheVolume", testImage},
		{"ImageLargerThanTheVolume", testImageTooLarge},
		{"ImageThatDoesNotExist", testImageMissing},
		{"EndedContextDoesNothing", testEndedContext},
		{"VanishedPoolIsNotMadeAgain", testVanished},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, newPlace(t))
			c.run(t, f)
		})
	}
}

type fixture struct {
	Place
	backend.Backend
	ctx context.Context
}

func newFixture(t *testing.T, p Place) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	f := &fixture{Place: p, ctx: ctx}
	f.mustInit(t)
	b, err := p.Driver.Open(p.Pool)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	f.Backend = b
	return f
}

func (f *fixture) mustInit(t *testing.T) {
	t.Helper()
	if err := f.Driver.Init(f.ctx, f.Pool); err != nil {
		t.Fatalf("init: %v", err)
	}
}

func (f *fixture) mustCreate(t *testing.T, spec backend.Spec) backend.Volume {
	t.Helper()
	v, err := f.Create(f.ctx, spec)
	if err != nil {
		t.Fatalf("create %+v: %v", spec, err)
	}
	return v
}

func (f *fixture) mustList(t *testing.T) []backend.Volume {
	t.Helper()
	list, err := f.Volumes(f.ctx)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return list
}

// spec is the smallest volume that the backend can make in a format.
func (f *fixture) spec(format string) backend.Spec {
	return backend.Spec{ID: events.NewID(), SizeBytes: 2 * MiB, Format: format, Thin: f.Capabilities().Thin}
}

func (f *fixture) anySpec() backend.Spec { return f.spec(f.Capabilities().Formats[0]) }

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func testInitTwice(t *testing.T, f *fixture) {
	v := f.mustCreate(t, f.anySpec())
	f.mustInit(t)
	if list := f.mustList(t); len(list) != 1 || list[0].ID != v.ID {
		t.Errorf("volumes after a second init: %+v", list)
	}
}

func testCreate(t *testing.T, f *fixture) {
	for _, format := range f.Capabilities().Formats {
		t.Run(format, func(t *testing.T) {
			spec := f.spec(format)
			if _, err := f.Volume(f.ctx, spec.ID); !errors.Is(err, backend.ErrNotFound) {
				t.Fatalf("before the create: %v", err)
			}
			made := f.mustCreate(t, spec)
			if made.ID != spec.ID || made.Format != format || made.SizeBytes != spec.SizeBytes || made.Path == "" || made.Type == "" {
				t.Errorf("made %+v of %+v", made, spec)
			}
			seen, err := f.Volume(f.ctx, spec.ID)
			if err != nil || seen != made {
				t.Errorf("seen %+v, %v; made %+v", seen, err, made)
			}
		})
	}
}

func testCreateTwice(t *testing.T, f *fixture) {
	for _, format := range f.Capabilities().Formats {
		t.Run(format, func(t *testing.T) {
			spec := f.spec(format)
			first := f.mustCreate(t, spec)
			if again := f.mustCreate(t, spec); again != first {
				t.Errorf("second create %+v, first %+v", again, first)
			}
		})
	}
}

func testCreateConcurrently(t *testing.T, f *fixture) {
	spec := f.anySpec()
	const makers = 8
	errs := make([]error, makers)
	var wg sync.WaitGroup
	for i := range makers {
		wg.Go(func() { _, errs[i] = f.Create(f.ctx, spec) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("maker %d: %v", i, err)
		}
	}
	if list := f.mustList(t); len(list) != 1 || list[0].ID != spec.ID {
		t.Errorf("volumes %+v, want one", list)
	}
}

func testCreateOtherwise(t *testing.T, f *fixture) {
	spec := f.anySpec()
	made := f.mustCreate(t, spec)
	larger := spec
	larger.SizeBytes *= 2
	_, err := f.Create(f.ctx, larger)
	wantErr(t, err, backend.ErrAlreadyExists)
	if formats := f.Capabilities().Formats; len(formats) > 1 {
		other := spec
		other.Format = formats[1]
		_, err = f.Create(f.ctx, other)
		wantErr(t, err, backend.ErrAlreadyExists)
	}
	if list := f.mustList(t); !slices.Equal(list, []backend.Volume{made}) {
		t.Errorf("volumes %+v, want %+v alone", list, made)
	}
}

func testDelete(t *testing.T, f *fixture) {
	kept := f.mustCreate(t, f.anySpec())
	for _, format := range f.Capabilities().Formats {
		spec := f.spec(format)
		f.mustCreate(t, spec)
		for range 2 {
			if err := f.Delete(f.ctx, spec.ID); err != nil {
				t.Errorf("delete %s: %v", format, err)
			}
		}
		_, err := f.Volume(f.ctx, spec.ID)
		wantErr(t, err, backend.ErrNotFound)
	}
	if err := f.Delete(f.ctx, events.NewID()); err != nil {
		t.Errorf("delete of what never was: %v", err)
	}
	if list := f.mustList(t); !slices.Equal(list, []backend.Volume{kept}) {
		t.Errorf("volumes %+v, want %+v alone", list, kept)
	}
}

func testResize(t *testing.T, f *fixture) {
	for _, format := range f.Capabilities().Formats {
		spec := f.spec(format)
		f.mustCreate(t, spec)
		larger := spec.SizeBytes + 3*MiB
		for _, size := range []int64{larger, larger, spec.SizeBytes} { // it only grows
			if err := f.Resize(f.ctx, spec.ID, size); err != nil {
				t.Errorf("resize %s to %d: %v", format, size, err)
			}
			if v, err := f.Volume(f.ctx, spec.ID); err != nil || v.SizeBytes != larger {
				t.Errorf("%s has %d bytes, want %d (%v)", format, v.SizeBytes, larger, err)
			}
		}
		for _, size := range []int64{0, -512, larger + 1} {
			wantErr(t, f.Resize(f.ctx, spec.ID, size), backend.ErrInvalid)
		}
	}
	wantErr(t, f.Resize(f.ctx, events.NewID(), MiB), backend.ErrNotFound)
}

func testList(t *testing.T, f *fixture) {
	if list := f.mustList(t); len(list) != 0 {
		t.Errorf("new pool has %#v, want none", list)
	}
	var want []backend.Volume
	for range 3 {
		want = append(want, f.mustCreate(t, f.anySpec())) // ids rise
	}
	if list := f.mustList(t); !slices.Equal(list, want) {
		t.Errorf("volumes %+v, want %+v", list, want)
	}
}

func testInvalid(t *testing.T, f *fixture) {
	for name, c := range map[string]struct {
		change func(*backend.Spec)
		want   error
	}{
		"no id":         {func(s *backend.Spec) { s.ID = [16]byte{} }, backend.ErrInvalid},
		"no size":       {func(s *backend.Spec) { s.SizeBytes = 0 }, backend.ErrInvalid},
		"negative size": {func(s *backend.Spec) { s.SizeBytes = -MiB }, backend.ErrInvalid},
		"odd size":      {func(s *backend.Spec) { s.SizeBytes = MiB + 1 }, backend.ErrInvalid},
		"no format":     {func(s *backend.Spec) { s.Format = "" }, backend.ErrUnsupported},
		"a path":        {func(s *backend.Spec) { s.Format = "../raw" }, backend.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			spec := f.anySpec()
			c.change(&spec)
			_, err := f.Create(f.ctx, spec)
			wantErr(t, err, c.want)
		})
	}
	if list := f.mustList(t); len(list) != 0 {
		t.Errorf("volumes %+v after refused creates", list)
	}
}

func testThick(t *testing.T, f *fixture) {
	if !f.Capabilities().Thick {
		t.Skip("the backend reserves no space")
	}
	for _, format := range f.Capabilities().Formats {
		t.Run(format, func(t *testing.T) {
			spec := f.spec(format)
			spec.Thin = false
			if v := f.mustCreate(t, spec); v.Allocated < spec.SizeBytes {
				t.Errorf("takes %d bytes, want %d reserved", v.Allocated, spec.SizeBytes)
			}
		})
	}
}

func testExhausted(t *testing.T, f *fixture) {
	if !f.Capabilities().Thick {
		t.Skip("the backend reserves no space")
	}
	usage, err := f.Usage(f.ctx)
	if err != nil || usage.Available <= 0 || usage.Capacity < usage.Available {
		t.Fatalf("usage %+v, %v", usage, err)
	}
	for _, format := range f.Capabilities().Formats {
		spec := f.spec(format)
		spec.Thin, spec.SizeBytes = false, (usage.Capacity/MiB+1)*MiB
		_, err = f.Create(f.ctx, spec)
		wantErr(t, err, backend.ErrExhausted)
		_, err = f.Volume(f.ctx, spec.ID)
		wantErr(t, err, backend.ErrNotFound)
	}
}

func testImage(t *testing.T, f *fixture) {
	if f.Image == "" {
		t.Skip("the backend has no images")
	}
	for _, format := range f.Capabilities().Formats {
		for _, size := range []int64{MiB, 4 * MiB} {
			spec := f.spec(format)
			spec.Image, spec.SizeBytes = f.Image, size
			if v := f.mustCreate(t, spec); v.SizeBytes != size || v.Format != format {
				t.Errorf("made %+v of %+v", v, spec)
			}
		}
	}
}

func testImageTooLarge(t *testing.T, f *fixture) {
	if f.Image == "" {
		t.Skip("the backend has no images")
	}
	spec := f.anySpec()
	spec.Image, spec.SizeBytes = f.Image, MiB-512
	_, err := f.Create(f.ctx, spec)
	wantErr(t, err, backend.ErrInvalid)
	_, err = f.Volume(f.ctx, spec.ID)
	wantErr(t, err, backend.ErrNotFound)
}

func testImageMissing(t *testing.T, f *fixture) {
	if f.Image == "" {
		t.Skip("the backend has no images")
	}
	spec := f.anySpec()
	spec.Image = f.Image + "-missing"
	_, err := f.Create(f.ctx, spec)
	wantErr(t, err, backend.ErrNotFound)
	_, err = f.Volume(f.ctx, spec.ID)
	wantErr(t, err, backend.ErrNotFound)
}

func testEndedContext(t *testing.T, f *fixture) {
	kept := f.mustCreate(t, f.anySpec())
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	_, err := f.Create(ctx, f.anySpec())
	wantErr(t, err, context.Canceled)
	wantErr(t, f.Delete(ctx, kept.ID), context.Canceled)
	if list := f.mustList(t); !slices.Equal(list, []backend.Volume{kept}) {
		t.Errorf("volumes %+v, want %+v alone", list, kept)
	}
}

func testVanished(t *testing.T, f *fixture) {
	if f.Vanish == nil {
		t.Skip("the pool cannot be taken away")
	}
	v := f.mustCreate(t, f.anySpec())
	f.Vanish(t)
	_, err := f.Create(f.ctx, f.anySpec())
	wantErr(t, err, backend.ErrUnavailable)
	wantErr(t, f.Delete(f.ctx, v.ID), backend.ErrUnavailable)
	_, err = f.Volume(f.ctx, v.ID)
	wantErr(t, err, backend.ErrUnavailable)
	_, err = f.Volumes(f.ctx)
	wantErr(t, err, backend.ErrUnavailable)
	_, err = f.Usage(f.ctx)
	wantErr(t, err, backend.ErrUnavailable)
}
