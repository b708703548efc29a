//go:build !no_qemu

package libvirt

import (
	"errors"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"

	"horcrux/services/compute/hypervisor"
)

// meaning of an error by the number that libvirt gives it. The numbers that it uses for everything (internal error,
// operation failed, system error) mean that it would not do what it was told: ErrInvalid. That a disk is full it says in
// the words of the C library alone.
func meaning(said golibvirt.Error) error {
	if strings.Contains(said.Message, "No space left on device") {
		return hypervisor.ErrExhausted
	}
	switch golibvirt.ErrorNumber(said.Code) {
	case golibvirt.ErrNoDomain, golibvirt.ErrNoDomainSnapshot, golibvirt.ErrNoNetwork:
		return hypervisor.ErrNotFound
	case golibvirt.ErrDomExist, golibvirt.ErrNetworkExist:
		return hypervisor.ErrAlreadyExists
	case golibvirt.ErrOperationInvalid:
		return hypervisor.ErrConflict
	case golibvirt.ErrResourceBusy, golibvirt.ErrOperationTimeout, golibvirt.ErrOperationAborted:
		return hypervisor.ErrBusy
	case golibvirt.ErrNoSupport, golibvirt.ErrOperationUnsupported, golibvirt.ErrArgumentUnsupported:
		return hypervisor.ErrUnsupported
	case golibvirt.ErrNoMemory:
		return hypervisor.ErrExhausted
	case golibvirt.ErrOperationDenied, golibvirt.ErrAccessDenied, golibvirt.ErrAuthFailed,
		golibvirt.ErrAuthCancelled, golibvirt.ErrAuthUnavailable:
		return hypervisor.ErrPermission
	case golibvirt.ErrNoConnect, golibvirt.ErrInvalidConn, golibvirt.ErrRPC, golibvirt.ErrNoServer:
		return hypervisor.ErrUnavailable
	}
	return hypervisor.ErrInvalid
}

// answers says whether err is an answer of the daemon with this meaning.
func answers(err, sentinel error) bool {
	var said golibvirt.Error
	return errors.As(err, &said) && errors.Is(meaning(said), sentinel)
}

// ofDomain says of a call about a domain that a network which it needs is missing: the domain itself is there.
func ofDomain(err error) error {
	var said golibvirt.Error
	if errors.As(err, &said) && golibvirt.ErrorNumber(said.Code) == golibvirt.ErrNoNetwork {
		said.Code = uint32(golibvirt.ErrConfigUnsupported)
		return said
	}
	return err
}
