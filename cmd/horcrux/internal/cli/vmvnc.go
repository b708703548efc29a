//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) vmVNC() *cobra.Command {
	var readOnly bool
	var address string
	cmd := a.leaf("vnc VM", "Let VNC viewers of this host reach the screen of a virtual machine", func(ctx context.Context, s *session, args []string) error {
		if _, err := client.Decode[openapi.VM](s.GetVM(ctx, args[0], nil)); err != nil {
			return err
		}
		l, err := listenHere(s.cmd, address)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s\n", viewerAddress(l.Addr()))
		fmt.Fprintf(s.cmd.ErrOrStderr(), "Open this address with a VNC viewer. Ctrl-C ends it.\n")
		s.forward(ctx, l, func(ctx context.Context) (*client.Console, error) { return s.OpenScreen(ctx, args[0], readOnly) })
		return nil
	})
	cmd.Long = `Let VNC viewers of this host reach the screen of a virtual machine. It prints the address to give to the viewer, and goes
on until it is interrupted. Whoever can connect to the address sees the screen: it is a loopback one, or a Unix socket.`
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "only watch")
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:0", "loopback address and port, 0 for any, or the path of a Unix socket")
	return cmd
}

func listenHere(cmd *cobra.Command, address string) (net.Listener, error) {
	if strings.Contains(address, "/") {
		return net.Listen("unix", address)
	}
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, &usageError{cmd, fmt.Sprintf("--listen %q is no loopback address with a port, such as 127.0.0.1:5901, and no path", address)}
	}
	return net.Listen("tcp", address)
}

// viewerAddress is an address as VNC viewers take it: two colons before a port that is not a display's number.
func viewerAddress(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	return net.JoinHostPort(tcp.IP.String(), fmt.Sprintf(":%d", tcp.Port))
}

// forward joins each connection with a screen of its own until ctx ends.
func (s *session) forward(ctx context.Context, l net.Listener, open func(context.Context) (*client.Console, error)) {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var viewers sync.WaitGroup
	defer viewers.Wait()
	defer cancel()
	for {
		conn, err := l.Accept()
		if err != nil {
			return // it was closed
		}
		viewers.Go(func() {
			if err := join(ctx, conn, open); err != nil && ctx.Err() == nil {
				explain(s.cmd.ErrOrStderr(), err)
			}
		})
	}
}

// join moves bytes until either side, or ctx, ends, and closes both.
func join(ctx context.Context, conn net.Conn, open func(context.Context) (*client.Console, error)) error {
	defer conn.Close()
	c, err := open(ctx)
	if err != nil {
		return err
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = io.Copy(c, conn) // the other direction says how it ended
		_ = c.Close()
	})
	defer sending.Wait()
	defer conn.Close()
	_, err = io.Copy(conn, c)
	var end *client.ConsoleEnd
	if errors.As(err, &end) && !end.Orderly {
		return err
	}
	return nil
}
