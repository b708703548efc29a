//go:build no_ipv6

package listen

// network is what addresses are listened on: IPv4 alone.
const network = "tcp4"
