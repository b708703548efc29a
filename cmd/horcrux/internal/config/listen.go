//go:build !no_ipv6

package config

// defaultListen takes IPv6 and, as the kernel's default goes, IPv4.
const defaultListen = "[::]:8006"
