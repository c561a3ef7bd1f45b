package partner;

import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.Curve;
import com.nimbusds.jose.jwk.ECKey;
import com.nimbusds.jose.jwk.gen.ECKeyGenerator;
import com.nimbusds.oauth2.sdk.AccessTokenResponse;
import com.nimbusds.oauth2.sdk.AuthorizationCodeGrant;
import com.nimbusds.oauth2.sdk.AuthorizationGrant;
import com.nimbusds.oauth2.sdk.AuthorizationRequest;
import com.nimbusds.oauth2.sdk.AuthorizationResponse;
import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.PushedAuthorizationRequest;
import com.nimbusds.oauth2.sdk.PushedAuthorizationResponse;
import com.nimbusds.oauth2.sdk.RefreshTokenGrant;
import com.nimbusds.oauth2.sdk.ResponseType;
import com.nimbusds.oauth2.sdk.Scope;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.auth.JWTAuthenticationClaimsSet;
import com.nimbusds.oauth2.sdk.auth.PrivateKeyJWT;
import com.nimbusds.oauth2.sdk.dpop.DPoPProofFactory;
import com.nimbusds.oauth2.sdk.dpop.DefaultDPoPProofFactory;
import com.nimbusds.oauth2.sdk.http.HTTPRequest;
import com.nimbusds.oauth2.sdk.http.HTTPResponse;
import com.nimbusds.oauth2.sdk.id.Audience;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.oauth2.sdk.id.State;
import com.nimbusds.oauth2.sdk.pkce.CodeChallengeMethod;
import com.nimbusds.oauth2.sdk.pkce.CodeVerifier;
import com.nimbusds.openid.connect.sdk.Nonce;
import java.net.URI;
import java.util.Map;
import java.util.Scanner;
import net.minidev.json.JSONObject;

/** A partner's integration on the Nimbus OAuth SDK whose tokens are bound to a key, with pushed requests. */
public class NimbusDpop {
    static final ClientID CLIENT_ID = new ClientID(System.getenv("CLIENT_ID"));
    static final Scope SCOPE = Scope.parse(System.getenv("SCOPE"));
    static Issuer issuer;
    static AuthorizationServerMetadata metadata;
    static ECKey clientKey;
    static DPoPProofFactory proofs;
    /** The newest nonce of the authority; null before the first one. */
    static Nonce nonce;

    public static void main(String[] arguments) throws Exception {
        issuer = new Issuer(System.getenv("TENANT_AUTHORITY_URL"));
        metadata = AuthorizationServerMetadata.resolve(issuer);
        clientKey = ECKey.parse(System.getenv("PRIVATE_KEY"));
        proofs = new DefaultDPoPProofFactory(new ECKeyGenerator(Curve.P_256).generate(), JWSAlgorithm.ES256);
        var redirectUri = URI.create(System.getenv("REDIRECT_URI"));

        var verifier = new CodeVerifier();
        var state = new State();
        var request = new AuthorizationRequest.Builder(ResponseType.CODE, CLIENT_ID)
                .redirectionURI(redirectUri)
                .scope(SCOPE)
                .state(state)
                .codeChallenge(verifier, CodeChallengeMethod.S256)
                .resource(URI.create(System.getenv("CLOUD_API_URL")))
                .build();
        var pushed = PushedAuthorizationResponse.parse(send(() -> new PushedAuthorizationRequest(
                                metadata.getPushedAuthorizationRequestEndpointURI(), authentication(), request)
                        .toHTTPRequest()))
                .toSuccessResponse();
        var page = new AuthorizationRequest.Builder(pushed.getRequestURI(), CLIENT_ID)
                .endpointURI(metadata.getAuthorizationEndpointURI())
                .build();
        say(Map.of("authorization_url", page.toURI().toString()));

        var answer = AuthorizationResponse.parse(URI.create(new Scanner(System.in).nextLine()));
        if (!state.equals(answer.getState()) || !issuer.equals(answer.getIssuer())) {
            throw new IllegalStateException("the answer to another request");
        }
        var code = answer.toSuccessResponse().getAuthorizationCode();
        var first = tokens(new AuthorizationCodeGrant(code, redirectUri, verifier));
        step("code", first.toJSONObject());
        var second = tokens(new RefreshTokenGrant(first.getTokens().getRefreshToken()));
        step("refresh", second.toJSONObject());
        step("client_credentials", tokens(new ClientCredentialsGrant()).toJSONObject());
    }

    /** Makes an assertion: each call needs a new one. */
    static PrivateKeyJWT authentication() throws Exception {
        // The authority takes an assertion for the issuer only, not for the token endpoint.
        var claims = new JWTAuthenticationClaimsSet(CLIENT_ID, new Audience(issuer));
        return new PrivateKeyJWT(claims, JWSAlgorithm.ES256, clientKey.toPrivateKey(), clientKey.getKeyID(), null);
    }

    interface Request {
        HTTPRequest make() throws Exception;
    }

    /** Sends a request with a proof, and once more if the authority asks for its nonce in it. */
    static HTTPResponse send(Request request) throws Exception {
        for (int attempt = 0; ; attempt++) {
            var call = request.make();
            call.setDPoP(proofs.createDPoPJWT("POST", call.getURI(), nonce));
            var answer = call.send();
            var newest = answer.getDPoPNonce();
            boolean isChallenge = !answer.indicatesSuccess() && newest != null && !newest.equals(nonce);
            if (newest != null) {
                nonce = newest;
            }
            if (!isChallenge || attempt > 0) {
                return answer;
            }
        }
    }

    static AccessTokenResponse tokens(AuthorizationGrant grant) throws Exception {
        var answer = send(() ->
                new TokenRequest.Builder(metadata.getTokenEndpointURI(), authentication(), grant).build().toHTTPRequest());
        return TokenResponse.parse(answer).toSuccessResponse();
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
