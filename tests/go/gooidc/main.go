// A resource server on github.com/coreos/go-oidc: it verifies access tokens by the authority's keys.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	"accord.example/partner/settings"
	"github.com/coreos/go-oidc/v3/oidc"
)

// isAccessToken tells whether a JWT is of the type of access tokens, which the library does not compare.
func isAccessToken(token string) bool {
	encoded, _, _ := strings.Cut(token, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	var header struct {
		Type string `json:"typ"`
	}
	return err == nil && json.Unmarshal(decoded, &header) == nil && header.Type == "at+jwt"
}

func main() {
	ctx := context.Background()
	provider, err := oidc.NewProvider(ctx, settings.TenantAuthorityURL)
	settings.Check(err)
	// For the library the audience is a client id. Without the algorithm it would expect RS256.
	verifier := provider.VerifierContext(ctx, &oidc.Config{
		ClientID:             settings.CloudAPIURL,
		SupportedSigningAlgs: []string{oidc.EdDSA},
	})
	for token, ok := settings.Hear(); ok; token, ok = settings.Hear() {
		result := map[string]any{}
		if !isAccessToken(token) {
			result["why"] = "this is no access token"
		} else if accepted, err := verifier.Verify(ctx, token); err != nil {
			result["why"] = err.Error()
		} else {
			settings.Check(accepted.Claims(&result))
		}
		result["accepted"] = result["why"] == nil
		settings.Say(result)
	}
}
