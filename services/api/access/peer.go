package access

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Peer adds to the context of a connection over a Unix socket who is at its other end, by the kernel's word. Root and
// the user of this process are administrators. Other connections get no caller. It is for http.Server.ConnContext.
func Peer(ctx context.Context, conn net.Conn) context.Context {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, err := peerUID(socket)
	if err != nil {
		return ctx // nobody: refused by every route that needs somebody
	}
	return With(ctx, Caller{
		Actor: fmt.Sprintf("uid:%d", uid), Auth: "peer", Administrator: uid == 0 || int(uid) == os.Geteuid(),
	})
}

func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
