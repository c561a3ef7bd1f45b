package partner;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.net.URI;
import java.util.Map;
import java.util.Scanner;
import java.util.Set;
import net.minidev.json.JSONObject;

/** A resource server on Nimbus JOSE + JWT with its processor and its own cache of the JWKS. They take no Ed25519 keys. */
public class NimbusCaching {
    public static void main(String[] arguments) throws Exception {
        var issuer = System.getenv("TENANT_AUTHORITY_URL");
        var keys = JWKSourceBuilder.<SecurityContext>create(URI.create(issuer + "/jwks.json").toURL()).build();
        var algorithms = Set.of(JWSAlgorithm.ES256, JWSAlgorithm.RS256, JWSAlgorithm.PS256);
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(algorithms, keys));
        processor.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(
                System.getenv("CLOUD_API_URL"),
                new JWTClaimsSet.Builder().issuer(issuer).build(),
                Set.of("sub", "exp", "client_id", "tenant_id")));

        var input = new Scanner(System.in);
        while (input.hasNextLine()) {
            try {
                var said = new JSONObject(processor.process(input.nextLine(), null).toJSONObject());
                said.put("accepted", true);
                System.out.println(said.toJSONString());
            } catch (Exception error) {
                System.out.println(new JSONObject(Map.of("accepted", false, "why", error.toString())).toJSONString());
            }
        }
    }
}
