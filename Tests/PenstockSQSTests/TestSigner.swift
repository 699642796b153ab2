// SPDX-License-Identifier: Apache-2.0
import PenstockSQS

/// Headers of which one name may come several times.
struct HeaderList: SQSHeaders {
  var fields: [(name: String, value: String)]

  func first(_ name: String) -> String? { all(name).first }
  func all(_ name: String) -> [String] {
    fields.filter { $0.name.lowercased() == name.lowercased() }.map(\.value)
  }
  var names: [String] {
    var seen: Set<String> = []
    return fields.map { $0.name.lowercased() }.filter { seen.insert($0).inserted }
  }
}

/// Signs requests as clients do. Shares nothing with the code under test but SHA-256.
struct TestSigner {
  var keyID = "AKIDEXAMPLE"
  var secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
  var token: String?
  var region = "us-east-1"
  var service = "sqs"
  var terminator = "aws4_request"
  /// In basic form.
  var date = "20260115T120000Z"
  /// The day in the scope; nil for that of the date.
  var scopeDay: String?
  /// Names that are left out of the signature.
  var unsigned: Set<String> = []
  var payload: String?

  /// A request with `Host`, `X-Amz-Date` and, when there is one, the token, and `Authorization`.
  func signed(
    method: String = "POST", path: String = "/", query: [(String, String)] = [],
    headers: [(name: String, value: String)] = [], body: String = ""
  ) -> SQSRequest {
    var fields = headers
    if !fields.contains(where: { $0.name.lowercased() == "host" }) {
      fields.append(("Host", "localhost:9324"))
    }
    fields.append(("X-Amz-Date", date))
    if let token { fields.append(("X-Amz-Security-Token", token)) }
    let names = signedNames(fields)
    let signature = signature(
      method: method, path: path, query: Self.canonical(query), fields: fields, names: names,
      body: body)
    fields.append(
      (
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=\(keyID)/\(scope), SignedHeaders="
          + "\(names.joined(separator: ";")), Signature=\(signature)"
      ))
    let target = query.isEmpty ? path : path + "?" + Self.encoded(query)
    return SQSRequest(
      method: method, target: target, headers: HeaderList(fields: fields), body: Array(body.utf8))
  }

  /// A request whose URL is signed.
  func presigned(
    method: String = "GET", path: String = "/123456789012/demo", query: [(String, String)] = [],
    headers: [(name: String, value: String)] = [("Host", "localhost:9324")],
    expires: String = "300", body: String = ""
  ) -> SQSRequest {
    let names = signedNames(headers)
    var all = query
    all.append(("X-Amz-Algorithm", "AWS4-HMAC-SHA256"))
    all.append(("X-Amz-Credential", "\(keyID)/\(scope)"))
    all.append(("X-Amz-Date", date))
    all.append(("X-Amz-Expires", expires))
    all.append(("X-Amz-SignedHeaders", names.joined(separator: ";")))
    if let token { all.append(("X-Amz-Security-Token", token)) }
    let signature = signature(
      method: method, path: path, query: Self.canonical(all), fields: headers, names: names,
      body: body)
    all.append(("X-Amz-Signature", signature))
    return SQSRequest(
      method: method, target: path + "?" + Self.encoded(all), headers: HeaderList(fields: headers),
      body: Array(body.utf8))
  }

  var day: String { scopeDay ?? String(date.prefix(8)) }
  var scope: String { "\(day)/\(region)/\(service)/\(terminator)" }

  private func signedNames(_ fields: [(name: String, value: String)]) -> [String] {
    Set(fields.map { $0.name.lowercased() }).subtracting(unsigned).sorted()
  }

  private func signature(
    method: String, path: String, query: String, fields: [(name: String, value: String)],
    names: [String], body: String
  ) -> String {
    let lines = names.map { name in
      let values = fields.filter { $0.name.lowercased() == name }.map {
        $0.value.split(whereSeparator: { $0 == " " || $0 == "\t" }).joined(separator: " ")
      }
      return "\(name):\(values.joined(separator: ","))\n"
    }
    let canonical = [
      method, Self.encoded(path, keeping: "/"), query, lines.joined(),
      names.joined(separator: ";"), payload ?? Digests.sha256(Array(body.utf8)),
    ].joined(separator: "\n")
    let text =
      "AWS4-HMAC-SHA256\n\(date)\n\(scope)\n" + Digests.sha256(Array(canonical.utf8))
    var key = Array("AWS4\(secret)".utf8)
    for part in [day, region, service, terminator, text] { key = Self.hmac(key, part) }
    return key.map { byte in
      let digits = String(byte, radix: 16)
      return byte < 16 ? "0" + digits : digits
    }.joined()
  }

  static func encoded(_ text: String, keeping kept: String = "") -> String {
    text.utf8.map { byte in
      let character = Character(Unicode.Scalar(byte))
      let isPlain = byte < 128 && (character.isLetter || character.isNumber)
      if isPlain || "-_.~".contains(character) || kept.contains(character) {
        return String(character)
      }
      return (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
    }.joined()
  }

  static func encoded(_ query: [(String, String)]) -> String {
    query.map { encoded($0.0) + "=" + encoded($0.1) }.joined(separator: "&")
  }

  private static func canonical(_ query: [(String, String)]) -> String {
    encoded(
      query.sorted {
        (encoded($0.0), encoded($0.1)) < (encoded($1.0), encoded($1.1))
      })
  }

  /// From its definition.
  private static func hmac(_ key: [UInt8], _ message: String) -> [UInt8] {
    var block = key.count > 64 ? sha256(key) : key
    block += [UInt8](repeating: 0, count: 64 - block.count)
    let inner = sha256(block.map { $0 ^ 0x36 } + Array(message.utf8))
    return sha256(block.map { $0 ^ 0x5c } + inner)
  }

  private static func sha256(_ bytes: [UInt8]) -> [UInt8] {
    let digits = Array(Digests.sha256(bytes))
    return stride(from: 0, to: digits.count, by: 2).map {
      UInt8(String(digits[$0...($0 + 1)]), radix: 16) ?? 0
    }
  }
}
