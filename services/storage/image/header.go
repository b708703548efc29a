package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Offsets and bits of the qcow2 header (QEMU, docs/interop/qcow2.rst). Numbers are big-endian.
const (
	qcow2Magic        = "QFI\xfb"
	offVersion        = 4
	offBackingFile    = 8
	offSize           = 24
	offCryptMethod    = 32
	offIncompatible   = 72 // version 3 only
	headerLength      = 80
	bitExternalData   = 1 << 2
	maxImageSize      = 1 << 60
	sectorSize        = 512
	qcow2FirstVersion = 2
	qcow2LastVersion  = 3
)

var errNotQCOW2 = errors.New("no qcow2 header")

// QCOW2Size is the virtual size in bytes that a qcow2 header tells. It fails for an image that is encrypted or needs
// another file: a header that names a host's file would give its bytes to the guest.
func QCOW2Size(r io.ReaderAt) (int64, error) {
	var h [headerLength]byte
	if n, err := r.ReadAt(h[:], 0); err != nil && (!errors.Is(err, io.EOF) || n < offIncompatible) {
		if errors.Is(err, io.EOF) {
			return 0, errNotQCOW2
		}
		return 0, fmt.Errorf("read header: %w", err)
	}
	if string(h[:len(qcow2Magic)]) != qcow2Magic {
		return 0, errNotQCOW2
	}
	version := binary.BigEndian.Uint32(h[offVersion:])
	size := binary.BigEndian.Uint64(h[offSize:])
	switch {
	case version < qcow2FirstVersion || version > qcow2LastVersion:
		return 0, fmt.Errorf("qcow2 version %d", version)
	case binary.BigEndian.Uint64(h[offBackingFile:]) != 0:
		return 0, errors.New("qcow2 image has a backing file")
	case binary.BigEndian.Uint32(h[offCryptMethod:]) != 0:
		return 0, errors.New("qcow2 image is encrypted")
	case version == qcow2LastVersion && binary.BigEndian.Uint64(h[offIncompatible:])&bitExternalData != 0:
		return 0, errors.New("qcow2 image keeps its data in another file")
	case size == 0 || size > maxImageSize:
		return 0, fmt.Errorf("qcow2 image of %d bytes", size)
	}
	return int64(size), nil
}
