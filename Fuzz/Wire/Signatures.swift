// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockSQS

/// Requests with signatures, of which only those are believed that the owner of the secret signed.
enum Signatures {
  private static let keyID = "AKIDEXAMPLE"
  /// 2026-01-15T12:00:00Z, when everything here was signed.
  private static let signedAt = Int64(1_768_478_400)

  private static let store: CredentialStore = {
    let text = """
      [default]
      aws_access_key_id = \(keyID)
      aws_secret_access_key = \(Access.secret)
      """
    do throws(CredentialsError) {
      return try CredentialStore(parsing: text, region: "us-east-1", account: "123456789012")
    } catch { fatalError("no credentials to fuzz: \(error)") }
  }()

  private static func verdict(_ request: Request, _ seconds: Int64 = signedAt) -> SignatureVerdict {
    SignatureVerdict(
      SQSRequest(
        method: request.method, target: Access.text(request.target),
        headers: HeaderFields(fields: request.fields), body: request.body),
      with: store, nowSeconds: seconds)
  }

  private static func checkRefusal(_ verdict: SignatureVerdict) {
    guard case .refused(let status, _, _, let message) = verdict else { return }
    check(status == 400 || status == 403, "status \(status) for a signature")
    check(!message.contains(Access.secretEnd), "a secret in \(message)")
  }

  /// A request out of nothing. No fuzzer guesses a signature.
  static func anyRequest(_ input: inout Input) {
    let names = [
      "authorization", "x-amz-date", "host", "date", "x-amz-security-token",
      "x-amz-content-sha256", "x-amz-target", "content-type",
    ]
    var request = Request(method: "POST", target: [], fields: [], body: [])
    let seconds = input.byte() == 0 ? input.awkward() : signedAt
    for _ in 0..<input.below(10) {
      request.fields.append((names[input.below(8)], Access.text(input.take(Int(input.byte())))))
    }
    request.target = input.take(2 * Int(input.byte()))
    request.body = input.rest()
    let verdict = verdict(request, seconds)
    checkRefusal(verdict)
    if case .signed = verdict { check(false, "a signature out of nothing") }
  }

  /// A signed request with some changes. When it is believed, it says what was signed.
  static func changedRequest(_ input: inout Input) {
    let base = bases[input.below(bases.count)]
    check(verdict(base) == .signed(keyID: keyID), "a signed request is refused")
    var request = base
    for _ in 0..<8 where !input.isEmpty { change(&request, &input) }
    let verdict = verdict(request)
    checkRefusal(verdict)
    guard case .signed(let found) = verdict else { return }
    check(found == keyID, "a key \(found)")
    check(Meaning(request) == Meaning(base), "a changed request is believed: \(request)")
  }

  private static func change(_ request: inout Request, _ input: inout Input) {
    let order = input.below(8)
    let place = request.fields.isEmpty ? 0 : input.below(request.fields.count)
    switch order {
    case 0: Access.change(&request.body, &input)
    case 1, 2: Access.change(&request.target, &input)
    case 3: request.method = Access.text(input.take(input.below(8)))
    case 4 where !request.fields.isEmpty: request.fields.remove(at: place)
    case 5 where !request.fields.isEmpty: request.fields.append(request.fields[place])
    case 6:
      let name = Access.text(input.take(input.below(32)))
      request.fields.append((name, Access.text(input.take(input.below(32)))))
    default:
      guard !request.fields.isEmpty else { return }
      var value = Array(request.fields[place].value.utf8)
      Access.change(&value, &input)
      request.fields[place].value = Access.text(value)
    }
  }

  /// Signed with other code than ours.
  private static let bases = [
    Request(
      method: "POST", target: Array("/".utf8),
      fields: [
        ("Content-Type", "application/x-amz-json-1.0"), ("Host", "localhost:9324"),
        ("X-Amz-Date", "20260115T120000Z"), ("X-Amz-Target", "AmazonSQS.ListQueues"),
        ("x-amzn-query-mode", "true"), ("User-Agent", "not signed"),
        authorization(
          "content-type;host;x-amz-date;x-amz-target;x-amzn-query-mode",
          "c49b80d0fb9a01ac79c9daad46597290f803a9aa2afd3fa598ef08eb56cabb32"),
      ], body: Array(#"{"QueueNamePrefix": "demo"}"#.utf8)),
    Request(
      method: "POST", target: Array("/123456789012/demo".utf8),
      fields: [
        ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("Host", "localhost:9324"), ("X-Amz-Date", "20260115T120000Z"),
        authorization(
          "content-type;host;x-amz-date",
          "b445ae4f11eb1c999208b08a42822906d205fa96829ce8d8ded7a3f38361fbdc"),
      ], body: Array("Action=SendMessage&MessageBody=hi%20there&Version=2012-11-05".utf8)),
    Request(
      method: "GET",
      target: Array(
        ("/123456789012/demo?Action=ReceiveMessage&MaxNumberOfMessages=5&Version=2012-11-05"
          + "&X-Amz-Algorithm=AWS4-HMAC-SHA256"
          + "&X-Amz-Credential=AKIDEXAMPLE%2F20260115%2Fus-east-1%2Fsqs%2Faws4_request"
          + "&X-Amz-Date=20260115T120000Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host"
          + "&X-Amz-Signature=548c4996b0e38702c11881940cf37463fea532621f425ffbc5231cb053d75e82")
          .utf8),
      fields: [("Host", "localhost:9324")], body: []),
  ]

  private static func authorization(
    _ names: String, _ signature: String
  ) -> (name: String, value: String) {
    (
      "Authorization",
      "AWS4-HMAC-SHA256 Credential=\(keyID)/20260115/us-east-1/sqs/aws4_request, "
        + "SignedHeaders=\(names), Signature=\(signature)"
    )
  }
}

private struct Request {
  var method: String
  var target: [UInt8]
  var fields: [(name: String, value: String)]
  var body: [UInt8]

  func values(_ name: String) -> [String] { HeaderFields(fields: fields).all(name) }
}

/// What a signature vouches for: two requests with the same meaning do the same. Shares no code
/// with what is fuzzed.
private struct Meaning: Equatable {
  var method: [UInt8]
  var path: [[UInt8]]
  var endsInSlash: Bool
  /// Names and values without their encoding, in order, and without the signature.
  var parameters: [[UInt8]]
  var body: [UInt8]
  /// Values without needless blanks, for each header that is signed or would have to be.
  var headers: [String: [[UInt8]]]

  init(_ request: Request) {
    method = Array(request.method.utf8)
    body = request.body
    var target = request.target[...]
    for scheme in ["http://", "https://"] where target.starts(with: scheme.utf8) {
      target = target.dropFirst(scheme.utf8.count).drop { !"/?".utf8.contains($0) }
    }
    let written = target.prefix { $0 != UInt8(ascii: "?") }
    var segments: [[UInt8]] = []
    for segment in written.split(separator: UInt8(ascii: "/")).map(Array.init) {
      if segment == Array("..".utf8) {
        _ = segments.popLast()
      } else if segment != Array(".".utf8) {
        segments.append(segment)
      }
    }
    path = segments
    endsInSlash = segments.isEmpty || written.last == UInt8(ascii: "/")
    parameters = target.dropFirst(written.count + 1).split(separator: UInt8(ascii: "&"))
      .map { part in
        let name = part.prefix { $0 != UInt8(ascii: "=") }
        let value = part.dropFirst(name.count + 1)
        return Self.decoded(name) + [0] + Self.decoded(value)
      }
      .filter { !$0.starts(with: "X-Amz-Signature\0".utf8) }
      .sorted { $0.lexicographicallyPrecedes($1) }
    headers = [:]
    // Those that one of the requests has signed, and those that change what a request does.
    for name in ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"] {
      headers[name] = request.values(name).map(Self.withoutBlanks)
    }
    let isPresigned = request.values("authorization").isEmpty
    headers["x-amz-target"] = request.values("x-amz-target").map(Self.withoutBlanks)
    if !isPresigned {
      headers["content-type"] = request.values("content-type").map(Self.withoutBlanks)
    }
  }

  private static func withoutBlanks(_ value: String) -> [UInt8] {
    Array(
      value.utf8.split { $0 == 0x20 || $0 == 0x09 }.map(Array.init).joined(separator: [0x20]))
  }

  private static func decoded(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    var rest = bytes
    while let byte = rest.popFirst() {
      let digits = rest.prefix(2)
      if byte == UInt8(ascii: "%"), digits.count == 2,
        digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit && $0 < 0x80 }),
        let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
      {
        result.append(code)
        rest = rest.dropFirst(2)
      } else {
        result.append(byte == UInt8(ascii: "+") ? 0x20 : byte)
      }
    }
    return result
  }
}

/// As a server has them: names are ASCII and have no case.
struct HeaderFields: SQSHeaders {
  var fields: [(name: String, value: String)]

  func first(_ name: String) -> String? { all(name).first }

  func all(_ name: String) -> [String] {
    let wanted = Self.lowercase(name)
    return fields.filter { Self.lowercase($0.name) == wanted }.map(\.value)
  }

  var names: [String] { Array(Set(fields.map { $0.name.lowercased() })) }

  private static func lowercase(_ name: String) -> [UInt8] {
    name.utf8.map { $0 &- UInt8(ascii: "A") < 26 ? $0 | 0x20 : $0 }
  }
}
