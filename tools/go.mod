module horcrux/tools

go 1.26.0
