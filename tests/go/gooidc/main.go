// A resource server on github.com/coreos/go-oidc: it verifies access tokens by the authority's keys.
package main

import (
	"context"

	"accord.example/partner/settings"
	"github.com/coreos/go-oidc/v3/oidc"
)

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
		if accepted, err := verifier.Verify(ctx, token); err != nil {
			result["why"] = err.Error()
		} else {
			settings.Check(accepted.Claims(&result))
		}
		result["accepted"] = result["why"] == nil
		settings.Say(result)
	}
}
