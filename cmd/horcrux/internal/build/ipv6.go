//go:build !no_ipv6

package build

const ipv6 = true
