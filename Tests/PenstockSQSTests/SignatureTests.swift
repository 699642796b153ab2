// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

/// 2026-01-15T12:00:00Z
let signingNow = Int64(1_768_478_400)

let signingSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

func signingStore() throws -> CredentialStore {
  try CredentialStore(
    parsing: """
      [default]
      aws_access_key_id = AKIDEXAMPLE
      aws_secret_access_key = \(signingSecret)
      [session]
      aws_access_key_id = ASIASESSION
      aws_secret_access_key = second/secret
      aws_session_token = the+token/==
      expires = 2026-01-15T13:00:00Z
      """, region: "us-east-1", account: "123456789012")
}

func verdict(
  _ request: SQSRequest, at now: Int64 = signingNow, region: String = "us-east-1"
) throws -> SignatureVerdict {
  SignatureVerdict(request, with: try signingStore(), region: region, nowSeconds: now)
}

extension SignatureVerdict {
  static let known = SignatureVerdict.signed(keyID: "AKIDEXAMPLE")

  static func mismatch(_ message: String) -> SignatureVerdict {
    .refused(
      status: 403, type: "InvalidSignatureException", code: "SignatureDoesNotMatch",
      message: message)
  }

  static let wrongSignature = mismatch(
    "The request signature we calculated does not match the signature you provided. Check your "
      + "AWS Secret Access Key and signing method. Consult the service documentation for details.")

  static let unknownKey = SignatureVerdict.refused(
    status: 403, type: "UnrecognizedClientException", code: "InvalidClientTokenId",
    message: "The security token included in the request is invalid.")

  /// Whether it is 400 IncompleteSignature, whatever the text.
  var isIncomplete: Bool {
    guard case .refused(400, "IncompleteSignatureException", "IncompleteSignature", let text) = self
    else { return false }
    return !text.isEmpty
  }

  var message: String? {
    guard case .refused(_, _, _, let message) = self else { return nil }
    return message
  }
}

/// Examples that were checked against botocore.
@Suite struct SignatureVectors {
  static func request(
    _ method: String, _ target: String, _ headers: [(name: String, value: String)], _ body: String
  ) -> SQSRequest {
    SQSRequest(
      method: method, target: target, headers: HeaderList(fields: headers), body: Array(body.utf8))
  }

  static func authorization(_ names: String, _ signature: String) -> String {
    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260115/us-east-1/sqs/aws4_request, "
      + "SignedHeaders=\(names), Signature=\(signature)"
  }

  static let json = request(
    "POST", "/",
    [
      ("Content-Type", "application/x-amz-json-1.0"), ("Host", "localhost:9324"),
      ("X-Amz-Date", "20260115T120000Z"), ("X-Amz-Target", "AmazonSQS.ListQueues"),
      ("X-Amzn-Query-Mode", "true"), ("User-Agent", "unsigned"),
      (
        "Authorization",
        authorization(
          "content-type;host;x-amz-date;x-amz-target;x-amzn-query-mode",
          "c49b80d0fb9a01ac79c9daad46597290f803a9aa2afd3fa598ef08eb56cabb32")
      ),
    ], "{\"QueueNamePrefix\": \"demo\"}")

  static let form = request(
    "POST", "/123456789012/demo",
    [
      ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
      ("Host", "localhost:9324"), ("X-Amz-Date", "20260115T120000Z"),
      (
        "Authorization",
        authorization(
          "content-type;host;x-amz-date",
          "b445ae4f11eb1c999208b08a42822906d205fa96829ce8d8ded7a3f38361fbdc")
      ),
    ], "Action=SendMessage&MessageBody=hi%20there&Version=2012-11-05")

  static let presigned = request(
    "GET",
    "/123456789012/demo?Action=ReceiveMessage&MaxNumberOfMessages=5&Version=2012-11-05"
      + "&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20260115%2Fus-east-1"
      + "%2Fsqs%2Faws4_request&X-Amz-Date=20260115T120000Z&X-Amz-Expires=300"
      + "&X-Amz-SignedHeaders=host&X-Amz-Signature="
      + "548c4996b0e38702c11881940cf37463fea532621f425ffbc5231cb053d75e82",
    [("Host", "localhost:9324")], "")

  @Test(arguments: [
    (json, "66636a9e3569658e502107855f763882d4c7afbcdec4caf7e0ecc8b817072036"),
    (form, "090545d101b0890f5c2326f8d9d02de5affbfeacb4bd53ad3f8db941f8c135fb"),
    (presigned, "c9961526ca4c259d168d4576a8c7215677e3161cd629bf93c70fee768b43e88f"),
  ])
  func isAccepted(_ request: SQSRequest, _ canonicalHash: String) throws {
    #expect(SignatureV4.canonicalHash(request) == canonicalHash)
    #expect(try verdict(request) == .known)
  }

  @Test func hasTheSigningKey() {
    let key = SignatureV4.signingKeyText(
      secret: signingSecret, day: "20260115", region: "us-east-1")
    #expect(key == "4cd0b7cd0abe54a19860da2e8fcfb0987faa2ddcfbe014bc2f12f75fa3349311")
  }

  /// The signer of the tests and botocore agree.
  @Test func theTestSignerMakesTheSame() throws {
    let signed = TestSigner().signed(
      headers: [
        ("Content-Type", "application/x-amz-json-1.0"),
        ("X-Amz-Target", "AmazonSQS.ListQueues"), ("X-Amzn-Query-Mode", "true"),
      ], body: "{\"QueueNamePrefix\": \"demo\"}")
    #expect(signed.headers.first("authorization") == Self.json.headers.first("authorization"))
    let url = TestSigner().presigned(query: [
      ("Action", "ReceiveMessage"), ("MaxNumberOfMessages", "5"), ("Version", "2012-11-05"),
    ])
    #expect(url.target == Self.presigned.target)
  }
}

@Suite struct SignatureAnswers {
  private func bare(_ authorization: [String], date: String? = "20260115T120000Z") -> SQSRequest {
    var fields = [(name: "Host", value: "localhost:9324")]
    fields += authorization.map { ("Authorization", $0) }
    if let date { fields.append(("X-Amz-Date", date)) }
    return SQSRequest(
      method: "POST", target: "/", headers: HeaderList(fields: fields), body: [])
  }

  @Test func noCredentialsAreTheAnonymous() throws {
    #expect(try verdict(bare([])) == .anonymous)
    var request = bare([])
    request.target = "/?X-Amz-Date=20260115T120000Z&Action=ListQueues"
    #expect(try verdict(request) == .anonymous)
  }

  @Test func anUnknownKeyIsRefused() throws {
    #expect(try verdict(TestSigner(keyID: "AKIDOTHER").signed()) == .unknownKey)
    #expect(try verdict(TestSigner(keyID: "AKIDOTHER").presigned()) == .unknownKey)
  }

  @Test func aWrongSecretIsRefused() throws {
    #expect(try verdict(TestSigner(secret: "wrong").signed()) == .wrongSignature)
    #expect(try verdict(TestSigner(secret: "wrong").presigned()) == .wrongSignature)
  }

  static let scope = "AKIDEXAMPLE/20260115/us-east-1/sqs/aws4_request"
  static let hex = String(repeating: "0", count: 64)

  @Test(arguments: [
    "", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=bogus", "Bearer abc", "Basic YTpi",
    "AWS4-ECDSA-P256-SHA256 Credential=\(scope), SignedHeaders=host, Signature=\(hex)",
    "AWS4-HMAC-SHA256Credential=\(scope), SignedHeaders=host, Signature=\(hex)",
    "AWS4-HMAC-SHA256 SignedHeaders=host, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=host",
    "AWS4-HMAC-SHA256 Credential=, SignedHeaders=host, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=host, Signature=",
    "AWS4-HMAC-SHA256 Credential=\(scope)/x, SignedHeaders=host, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=a/b/c/d, SignedHeaders=host, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=//us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=host;host, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=host;HOST, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=host;;date, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=;, Signature=\(hex)",
    "AWS4-HMAC-SHA256 Credential=\(scope), Credential=\(scope), SignedHeaders=host, Signature=0",
    "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=host, Signature=1, Signature=2",
    "AWS4-HMAC-SHA256 Credential=\(scope), bogus, SignedHeaders=host, Signature=\(hex)",
  ])
  func aHeaderThatCannotBeReadIsIncomplete(_ authorization: String) throws {
    #expect(try verdict(bare([authorization])).isIncomplete)
  }

  @Test(arguments: [
    "0", String(repeating: "g", count: 64), String(repeating: "0", count: 63) + "é",
    String(repeating: "0", count: 66),
  ])
  func aSignatureThatIsNoHashDoesNotMatch(_ signature: String) throws {
    let authorization = SignatureVectors.authorization("host;x-amz-date", signature)
    #expect(try verdict(bare([authorization])) == .wrongSignature)
  }

  @Test func whatIsMissingIsNamed() throws {
    #expect(
      try verdict(bare(["AWS4-HMAC-SHA256 Credential=bogus"])).message
        == "Authorization header requires 'Signature' parameter. "
        + "Authorization header requires 'SignedHeaders' parameter.")
  }

  @Test func commasNeedNoBlanks() throws {
    var request = TestSigner().signed()
    let text = try #require(request.headers.first("authorization"))
    var fields = request.headers.names.filter { $0 != "authorization" }.map {
      (name: $0, value: request.headers.first($0) ?? "")
    }
    let squeezed = text.split(separator: ", ").joined(separator: ",")
    fields.append(("AUTHORIZATION", squeezed + " "))
    request.headers = HeaderList(fields: fields)
    #expect(try verdict(request) == .known)
  }

  @Test func twoClaimsAreIncomplete() throws {
    let signed = TestSigner().signed()
    let text = try #require(signed.headers.first("authorization"))
    #expect(try verdict(bare([text, text])).isIncomplete)
    var both = TestSigner().presigned()
    both.headers = signed.headers
    #expect(try verdict(both).isIncomplete)
    let url = TestSigner().presigned()
    for name in ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"] {
      var twice = url
      twice.target += "&X-Amz-\(name)=1"
      #expect(try verdict(twice).isIncomplete, "\(name)")
      // The same name in another spelling.
      twice = url
      twice.target += "&%58-Amz-\(name)=1"
      #expect(try verdict(twice).isIncomplete, "\(name)")
    }
  }

  @Test(arguments: ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"])
  func aHeaderOfTheSignatureThatComesTwiceIsIncomplete(_ name: String) throws {
    let payload = Digests.sha256([])
    var request = TestSigner(keyID: "ASIASESSION", secret: "second/secret", token: "the+token/==")
      .signed(headers: [("X-Amz-Content-Sha256", payload)])
    #expect(try verdict(request) == .signed(keyID: "ASIASESSION"))
    var list = try #require(request.headers as? HeaderList)
    list.fields.append((name, list.first(name) ?? ""))
    request.headers = list
    #expect(try verdict(request).isIncomplete)
  }

  @Test func scopesAreChecked() throws {
    #expect(
      try verdict(TestSigner(region: "eu-west-1").signed())
        == .mismatch("Credential should be scoped to a valid region. "))
    #expect(try verdict(TestSigner(region: "eu-west-1").signed(), region: "eu-west-1") == .known)
    #expect(
      try verdict(TestSigner(service: "sns").signed())
        == .mismatch("Credential should be scoped to correct service: 'sqs'. "))
    #expect(
      try verdict(TestSigner(terminator: "aws5").signed())
        == .mismatch("Credential should be scoped with a valid terminator: 'aws4_request'."))
    #expect(
      try verdict(TestSigner(scopeDay: "20260114").signed()).message?
        .hasPrefix("Date in Credential scope does not match") == true)
  }

  @Test func whatDecidesMustBeSigned() throws {
    func message(_ name: String) -> SignatureVerdict {
      .mismatch("'\(name)' must be a 'SignedHeader' in the AWS Authorization.")
    }
    #expect(
      try verdict(TestSigner(unsigned: ["host"]).signed()) == message("Host' or ':authority"))
    #expect(try verdict(TestSigner(unsigned: ["x-amz-date"]).signed()) == message("x-amz-date"))
    #expect(
      try verdict(
        TestSigner(unsigned: ["x-amz-target"]).signed(headers: [("X-Amz-Target", "AmazonSQS.X")]))
        == message("x-amz-target"))
    #expect(
      try verdict(
        TestSigner(unsigned: ["x-amz-content-sha256"]).signed(
          headers: [("X-Amz-Content-Sha256", Digests.sha256([]))]))
        == message("x-amz-content-sha256"))
    #expect(
      try verdict(
        TestSigner(
          keyID: "ASIASESSION", secret: "second/secret", token: "the+token/==",
          unsigned: ["x-amz-security-token"]
        ).signed()) == message("x-amz-security-token"))
    #expect(
      try verdict(
        TestSigner(unsigned: ["x-amz-user-agent", "x-amzn-trace-id"]).signed(
          headers: [("X-Amz-User-Agent", "a"), ("X-Amzn-Trace-Id", "Root=1")])) == .known)
  }
}

@Suite struct SignatureTampering {
  let signed = TestSigner().signed(
    path: "/123456789012/demo", query: [("a", "1"), ("b", "2")],
    headers: [("X-Amz-Target", "AmazonSQS.SendMessage"), ("X-Own", "1")], body: "{}")

  @Test func anythingThatIsSignedMayNotChange() throws {
    #expect(try verdict(signed) == .known)
    var other = signed
    other.body = Array("{ }".utf8)
    #expect(try verdict(other) == .wrongSignature)
    other = signed
    other.method = "GET"
    #expect(try verdict(other) == .wrongSignature)
    for target in [
      "/123456789012/demo2?a=1&b=2", "/123456789012/demo/?a=1&b=2", "/123456789012/demo?a=1&b=3",
      "/123456789012/demo?a=1", "/123456789012/demo?a=1&b=2&c=", "/?a=1&b=2",
      "/123456789012/demo", "", "*", "/%313456789012/demo?a=1&b=2",
    ] {
      other = signed
      other.target = target
      #expect(try verdict(other) == .wrongSignature, "\(target)")
    }
  }

  @Test func anotherSpellingOfTheSameIsTheSame() throws {
    for target in [
      "/123456789012/demo?b=2&a=1", "//123456789012/./x/../demo?a=1&b=2",
      "/123456789012/demo?%61=%31&&b=2", "http://other:1/123456789012/demo?a=1&b=2",
    ] {
      var other = signed
      other.target = target
      #expect(try verdict(other) == .known, "\(target)")
    }
  }

  @Test(arguments: ["host", "x-amz-target", "x-own"])
  func headersMayNotChangeNorGo(_ name: String) throws {
    let list = try #require(signed.headers as? HeaderList)
    var other = signed
    var changed = list
    for position in changed.fields.indices where changed.fields[position].name.lowercased() == name
    { changed.fields[position].value += "x" }
    other.headers = changed
    #expect(try verdict(other) == .wrongSignature)
    other.headers = HeaderList(fields: list.fields.filter { $0.name.lowercased() != name })
    #expect(try verdict(other) == .wrongSignature)
    other.headers = HeaderList(fields: list.fields + [(name, "2")])
    let twice = try verdict(other)
    #expect(name == "x-amz-target" ? twice.isIncomplete : twice == .wrongSignature)
    other.headers = HeaderList(fields: list.fields + [("X-Unsigned", "2")])
    #expect(try verdict(other) == .known)
  }

  @Test func blanksAroundAndInHeadersDoNotCount() throws {
    let request = TestSigner().signed(
      headers: [("X-Own", "  a \t b  "), ("X-Own", "c"), ("X-Empty", "")])
    #expect(try verdict(request) == .known)
    var list = try #require(request.headers as? HeaderList)
    list.fields[0].value = "a b"
    var other = request
    other.headers = list
    #expect(try verdict(other) == .known)
    list.fields.swapAt(0, 1)
    other.headers = list
    #expect(try verdict(other) == .wrongSignature)
  }

  @Test func theDeclaredHashOfTheBodyMustBeIts() throws {
    func request(_ declared: String, _ body: String) -> SQSRequest {
      TestSigner(payload: declared).signed(
        headers: [("X-Amz-Content-Sha256", declared)], body: body)
    }
    let hash = Digests.sha256(Array("{}".utf8))
    #expect(try verdict(request(hash, "{}")) == .known)
    #expect(try verdict(request(hash.uppercased(), "{}")) == .known)
    #expect(try verdict(request(hash, "{ }")) == .wrongSignature)
    #expect(try verdict(request("UNSIGNED-PAYLOAD", "{ }")) == .known)
    #expect(try verdict(request("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "{}")) == .wrongSignature)
    #expect(try verdict(request("", "{}")) == .wrongSignature)
  }

  /// Tens of thousands of parameters, headers or names cost no more than themselves.
  @Test func manyPartsAreHarmless() throws {
    let query = (0..<6000).map { ("p\($0 % 7)", "\($0)") }
    #expect(try verdict(TestSigner().signed(query: query)) == .known)
    let names = (0..<20_000).map { "h\($0)" }.joined(separator: ";")
    var request = TestSigner().signed()
    request.headers = HeaderList(fields: [
      ("host", "a"), ("x-amz-date", "20260115T120000Z"),
      ("authorization", SignatureVectors.authorization("host;" + names, "0")),
    ])
    #expect(try verdict(request).message == "SignedHeaders has more than 64 names.")
    let long = String(repeating: ",=/;%&?\r\n\0é", count: 6000)
    request.headers = HeaderList(fields: [("authorization", "AWS4-HMAC-SHA256 " + long)])
    #expect(try verdict(request).isIncomplete)
    request = TestSigner().presigned()
    request.target = long + request.target + long
    #expect(try verdict(request) != .known)
  }

  /// Every cut of the parts that a client writes is refused, and none is an accident.
  @Test func cutRequestsAreRefused() throws {
    let text = try #require(signed.headers.first("authorization"))
    let list = try #require(signed.headers as? HeaderList)
    for length in 0..<text.utf8.count {
      var other = signed
      other.headers = HeaderList(
        fields: list.fields.dropLast() + [("Authorization", String(text.prefix(length)))])
      guard case .refused = try verdict(other) else {
        Issue.record("\(length)")
        continue
      }
    }
    let url = TestSigner().presigned()
    for length in 0..<url.target.utf8.count {
      var other = url
      other.target = String(url.target.prefix(length))
      #expect(try verdict(other) != .known)
    }
  }
}
