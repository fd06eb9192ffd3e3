// Package e2e holds Drover's end-to-end tests: real geth, the real binary, the
// embedded broker, and comparisons of whole databases and of answers byte for
// byte. DESIGN.md says what each file is for.
package e2e
