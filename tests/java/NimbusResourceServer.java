package partner;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.crypto.Ed25519Verifier;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import java.net.URI;
import java.util.Map;
import java.util.Scanner;
import java.util.Set;
import net.minidev.json.JSONObject;

/** A resource server on Nimbus JOSE + JWT, with Tink: it verifies access tokens by the authority's keys. */
public class NimbusResourceServer {
    public static void main(String[] arguments) throws Exception {
        var issuer = System.getenv("TENANT_AUTHORITY_URL");
        var keys = JWKSet.load(URI.create(issuer + "/jwks.json").toURL());
        var claims = new DefaultJWTClaimsVerifier<SecurityContext>(
                System.getenv("CLOUD_API_URL"),
                new JWTClaimsSet.Builder().issuer(issuer).build(),
                Set.of("sub", "exp", "client_id", "tenant_id"));
        var type = new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt"));

        var input = new Scanner(System.in);
        while (input.hasNextLine()) {
            try {
                var token = SignedJWT.parse(input.nextLine());
                type.verify(token.getHeader().getType(), null);
                // DefaultJWTProcessor does not take Ed25519 keys.
                var key = keys.getKeyByKeyId(token.getHeader().getKeyID()).toOctetKeyPair();
                if (!token.verify(new Ed25519Verifier(key))) {
                    throw new SecurityException("the signature is wrong");
                }
                claims.verify(token.getJWTClaimsSet(), null);
                var line = new JSONObject(token.getJWTClaimsSet().toJSONObject());
                line.put("accepted", true);
                System.out.println(line.toJSONString());
            } catch (Exception error) {
                System.out.println(new JSONObject(Map.of("accepted", false, "why", error.toString())).toJSONString());
            }
        }
    }
}
