package rest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/submit"
)

// ListVMs implements StrictServerInterface, as the methods below do.
func (s *Server) ListVMs(ctx context.Context, _ ListVMsRequestObject) (ListVMsResponseObject, error) {
	return s.list(ctx, &vm.Resource, nil)
}

func (s *Server) GetVM(ctx context.Context, r GetVMRequestObject) (GetVMResponseObject, error) {
	return s.show(ctx, named(&vm.Resource, r.ID))
}

func (s *Server) ListVMHistory(ctx context.Context, r ListVMHistoryRequestObject) (ListVMHistoryResponseObject, error) {
	return s.history(ctx, named(&vm.Resource, r.ID))
}

func (s *Server) CreateVM(ctx context.Context, r CreateVMRequestObject) (CreateVMResponseObject, error) {
	return s.create(ctx, &vm.Resource, func(ctx context.Context) (string, any, error) { return s.newVM(ctx, r.Body) })
}

func (s *Server) DeleteVM(ctx context.Context, r DeleteVMRequestObject) (DeleteVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "delete",
		vm.DeleteData{Force: or(r.Params.Force, false), KeepDisks: or(r.Params.KeepDisks, false)})
}

func (s *Server) StartVM(ctx context.Context, r StartVMRequestObject) (StartVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "start", nil)
}

func (s *Server) StopVM(ctx context.Context, r StopVMRequestObject) (StopVMResponseObject, error) {
	if or(r.Params.Force, true) {
		return s.command(ctx, named(&vm.Resource, r.ID), "stop", vm.StopData{Force: true})
	}
	return s.shutdown(ctx, r.ID, r.Body)
}

func (s *Server) ShutdownVM(ctx context.Context, r ShutdownVMRequestObject) (ShutdownVMResponseObject, error) {
	return s.shutdown(ctx, r.ID, r.Body)
}

func (s *Server) PauseVM(ctx context.Context, r PauseVMRequestObject) (PauseVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "pause", nil)
}

func (s *Server) ResumeVM(ctx context.Context, r ResumeVMRequestObject) (ResumeVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "resume", nil)
}

func (s *Server) ResetVM(ctx context.Context, r ResetVMRequestObject) (ResetVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "reset", nil)
}

func (s *Server) RebootVM(ctx context.Context, r RebootVMRequestObject) (RebootVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "reboot", nil)
}

func (s *Server) RevertVM(ctx context.Context, r RevertVMRequestObject) (RevertVMResponseObject, error) {
	return s.revert(ctx, named(&vm.Resource, r.ID), r.Body.To)
}

func (s *Server) shutdown(ctx context.Context, id string, b *openapi.VMShutdown) (answer, error) {
	timeout := or(or(b, openapi.VMShutdown{}).TimeoutS, 120)
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		want, err := s.intent(ctx, named(&vm.Resource, id), "shutdown", vm.StopData{TimeoutS: timeout})
		want.Takes = time.Duration(timeout) * time.Second
		return want, err
	})
}

// or is what a pointer points to, or a default.
func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// reserved are names that are a path of their own below a collection.
var reserved = []string{"unmanaged", "import"}

// checkName refuses names that a path could not tell from something else. Their form is checked by the document.
func checkName(name string) error {
	_, err := uuid.Parse(name)
	switch {
	case err == nil:
		return problem.Invalid(problem.Field{Field: "name", Detail: "must not be a UUID"})
	case slices.Contains(reserved, name):
		return problem.Invalid(problem.Field{Field: "name", Detail: fmt.Sprintf("%q is a path of its own", name)})
	}
	return nil
}

var (
	errRelative = errors.New("must be an absolute path")
	errOutside  = errors.New("must lie under one of the image_dirs")
)

// imageFile cleans the path of a file on a node and checks that it lies under an image dir, through symbolic links
// too. The file may be on another host: whether it exists is for the node to say, which checks all of this again.
func (s *Server) imageFile(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return path, errRelative
	}
	clean := filepath.Clean(path)
	inside := func(path string) bool {
		return slices.ContainsFunc(s.ImageDirs, func(dir string) bool {
			real, err := filepath.EvalSymlinks(dir)
			return under(dir, path) || err == nil && under(real, path)
		})
	}
	real, err := filepath.EvalSymlinks(clean)
	switch {
	case err == nil && !inside(real), err != nil && !inside(clean), err != nil && !errors.Is(err, os.ErrNotExist):
		return clean, errOutside
	}
	return clean, nil
}

func under(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && rest != "." && rest != ".." && !strings.HasPrefix(rest, "../")
}
