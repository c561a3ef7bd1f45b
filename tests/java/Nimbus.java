package partner;

import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.ECKey;
import com.nimbusds.oauth2.sdk.AccessTokenResponse;
import com.nimbusds.oauth2.sdk.AuthorizationCodeGrant;
import com.nimbusds.oauth2.sdk.AuthorizationGrant;
import com.nimbusds.oauth2.sdk.AuthorizationRequest;
import com.nimbusds.oauth2.sdk.AuthorizationResponse;
import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.RefreshTokenGrant;
import com.nimbusds.oauth2.sdk.ResponseType;
import com.nimbusds.oauth2.sdk.Scope;
import com.nimbusds.oauth2.sdk.TokenIntrospectionRequest;
import com.nimbusds.oauth2.sdk.TokenIntrospectionResponse;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.TokenRevocationRequest;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.auth.ClientAuthentication;
import com.nimbusds.oauth2.sdk.auth.ClientSecretBasic;
import com.nimbusds.oauth2.sdk.auth.JWTAuthenticationClaimsSet;
import com.nimbusds.oauth2.sdk.auth.PrivateKeyJWT;
import com.nimbusds.oauth2.sdk.auth.Secret;
import com.nimbusds.oauth2.sdk.id.Audience;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.oauth2.sdk.id.State;
import com.nimbusds.oauth2.sdk.pkce.CodeChallengeMethod;
import com.nimbusds.oauth2.sdk.pkce.CodeVerifier;
import com.nimbusds.oauth2.sdk.token.RefreshToken;
import java.net.URI;
import java.util.Map;
import java.util.Scanner;
import net.minidev.json.JSONObject;

/** A partner's integration on the Nimbus OAuth SDK, as its documentation shows it. */
public class Nimbus {
    static final ClientID CLIENT_ID = new ClientID(System.getenv("CLIENT_ID"));
    static final Scope SCOPE = Scope.parse(System.getenv("SCOPE"));
    static AuthorizationServerMetadata metadata;

    public static void main(String[] arguments) throws Exception {
        var issuer = new Issuer(System.getenv("TENANT_AUTHORITY_URL"));
        var redirectUri = URI.create(System.getenv("REDIRECT_URI"));
        var bySecret = new ClientSecretBasic(CLIENT_ID, new Secret(System.getenv("CLIENT_SECRET")));
        metadata = AuthorizationServerMetadata.resolve(issuer);

        var verifier = new CodeVerifier();
        var state = new State();
        var request = new AuthorizationRequest.Builder(ResponseType.CODE, CLIENT_ID)
                .endpointURI(metadata.getAuthorizationEndpointURI())
                .redirectionURI(redirectUri)
                .scope(SCOPE)
                .state(state)
                .codeChallenge(verifier, CodeChallengeMethod.S256)
                .resource(URI.create(System.getenv("CLOUD_API_URL")))
                .build();
        say(Map.of("authorization_url", request.toURI().toString()));

        var answer = AuthorizationResponse.parse(URI.create(new Scanner(System.in).nextLine()));
        if (!state.equals(answer.getState()) || !issuer.equals(answer.getIssuer())) {
            throw new IllegalStateException("the answer to another request");
        }
        var code = answer.toSuccessResponse().getAuthorizationCode();
        var first = tokens(bySecret, new AuthorizationCodeGrant(code, redirectUri, verifier));
        step("code", first.toJSONObject());
        var second = tokens(bySecret, new RefreshTokenGrant(first.getTokens().getRefreshToken()));
        step("refresh", second.toJSONObject());
        step("client_credentials", tokens(bySecret, new ClientCredentialsGrant()).toJSONObject());

        // The authority takes an assertion for the issuer only, not for the token endpoint.
        var key = ECKey.parse(System.getenv("PRIVATE_KEY"));
        var claims = new JWTAuthenticationClaimsSet(CLIENT_ID, new Audience(issuer));
        var byKey = new PrivateKeyJWT(claims, JWSAlgorithm.ES256, key.toPrivateKey(), key.getKeyID(), null);
        step("private_key_jwt", tokens(byKey, new ClientCredentialsGrant()).toJSONObject());

        var introspection = new TokenIntrospectionRequest(
                metadata.getIntrospectionEndpointURI(), bySecret, second.getTokens().getAccessToken());
        var introspected = TokenIntrospectionResponse.parse(introspection.toHTTPRequest().send());
        step("introspect", introspected.toSuccessResponse().toJSONObject());

        RefreshToken last = second.getTokens().getRefreshToken();
        new TokenRevocationRequest(metadata.getRevocationEndpointURI(), bySecret, last)
                .toHTTPRequest()
                .send()
                .ensureStatusCode(200);
        var refused = response(bySecret, new RefreshTokenGrant(last)).toErrorResponse();
        step("revoke", Map.of("refreshing", refused.getErrorObject().getCode()));
    }

    static TokenResponse response(ClientAuthentication authentication, AuthorizationGrant grant) throws Exception {
        var request = new TokenRequest.Builder(metadata.getTokenEndpointURI(), authentication, grant).build();
        return TokenResponse.parse(request.toHTTPRequest().send());
    }

    static AccessTokenResponse tokens(ClientAuthentication authentication, AuthorizationGrant grant) throws Exception {
        return response(authentication, grant).toSuccessResponse();
    }

    static void step(String name, Map<String, ?> result) {
        var line = new JSONObject(result);
        line.put("step", name);
        say(line);
    }

    static void say(Map<String, ?> what) {
        System.out.println(JSONObject.toJSONString(what));
    }
}
