//go:build !no_ipv6

package listen

// network is what addresses are listened on: IPv6 and IPv4.
const network = "tcp"
