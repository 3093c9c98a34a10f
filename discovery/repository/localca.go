package repository

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/jetpack-run/jetpack/internal/atomicfile"
)

// LocalCA gives a certificate for hosts (names, addresses) and the PEM file of the
// authority that signed it, for clients to trust: a means to try things out. Both are
// kept in dir, which is not to be one that is served, and used again as long as they are
// good for the hosts. The authority's own key is thrown away at once, so it certifies
// nothing else, ever.
func LocalCA(dir string, hosts []string) (_ tls.Certificate, caFile string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make certificate in %s: %w", dir, err)
		}
	}()
	if len(hosts) == 0 {
		return tls.Certificate{}, "", errors.New("no host is named")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return tls.Certificate{}, "", err
	}
	caFile = filepath.Join(dir, "ca.pem")
	pairFile := filepath.Join(dir, "server.pem")
	if pair, err := tls.LoadX509KeyPair(pairFile, pairFile); err == nil && usable(pair, caFile, hosts) {
		return pair, caFile, nil
	}
	authority, pair, err := certify(hosts)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	if err := atomicfile.Write(pairFile, pair, 0o600); err != nil {
		return tls.Certificate{}, "", err
	}
	if err := atomicfile.Write(caFile, authority, 0o644); err != nil {
		return tls.Certificate{}, "", err
	}
	certificate, err := tls.X509KeyPair(pair, pair)
	return certificate, caFile, err
}

// usable tells whether clients that trust caFile will accept a certificate for all
// hosts tomorrow.
func usable(pair tls.Certificate, caFile string, hosts []string) bool {
	authority, err := os.ReadFile(caFile)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(authority) {
		return false
	}
	for _, host := range hosts {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: time.Now().Add(24 * time.Hour)})
		if err != nil {
			return false
		}
	}
	return true
}

// certify makes an authority's certificate, and the server's with its key, in PEM.
func certify(hosts []string) (authority, pair []byte, err error) {
	begin := time.Now().Add(-time.Hour) // clocks differ
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "jetpack, for trying things out on " + hosts[0]},
		NotBefore:             begin,
		NotAfter:              begin.AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		NotBefore:   ca.NotBefore,
		NotAfter:    ca.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, host)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, nil, err
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, ca, serverKey.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, nil, err
	}
	pair = append(pemBlock("CERTIFICATE", serverDER), pemBlock("PRIVATE KEY", keyDER)...)
	return pemBlock("CERTIFICATE", caDER), pair, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
