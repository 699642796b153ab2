// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

@Suite struct SignatureClocks {
  @Test func aQuarterOfAnHourIsAllowed() throws {
    let request = TestSigner().signed()
    for skew in [Int64(-900), -1, 0, 1, 900] {
      #expect(try verdict(request, at: signingNow + skew) == .known)
    }
    #expect(
      try verdict(request, at: signingNow + 901)
        == .mismatch(
          "Signature expired: 20260115T120000Z is now earlier than 20260115T120001Z "
            + "(20260115T121501Z - 15 min.)"))
    #expect(
      try verdict(request, at: signingNow - 901)
        == .mismatch(
          "Signature not yet current: 20260115T120000Z is still later than 20260115T115959Z "
            + "(20260115T114459Z + 15 min.)"))
    for now in [Int64.min, .max, 0] {
      guard case .refused = try verdict(request, at: now) else {
        Issue.record("\(now)")
        continue
      }
    }
  }

  @Test(arguments: [
    "", "20260115", "20260115T120000", "20260115T120000z", "2026-01-15T12:00:00Z",
    "20260115T120000ZZ", "20261315T120000Z", "20260230T120000Z", "20260115T240000Z", "\u{660}",
  ])
  func aDateThatIsNoneIsIncomplete(_ date: String) throws {
    #expect(try verdict(TestSigner(date: date).signed()).isIncomplete)
    #expect(try verdict(TestSigner(date: date).presigned()).isIncomplete)
  }

  private func dated(_ values: [String]) throws -> SQSRequest {
    var request = TestSigner(unsigned: ["x-amz-date", "date"]).signed(
      headers: values.map { ("Date", $0) })
    let list = try #require(request.headers as? HeaderList)
    request.headers = HeaderList(fields: list.fields.filter { $0.name != "X-Amz-Date" })
    return request
  }

  @Test func theDateOfHTTPWillDo() throws {
    #expect(try verdict(dated(["Thu, 15 Jan 2026 12:00:00 GMT"])) == .known)
    #expect(try verdict(dated(["20260115T120000Z"])) == .known)
    #expect(try verdict(dated(["Thu, 15 Jan 2026 12:00:01 GMT"])) == .wrongSignature)
    #expect(try verdict(dated(["Fri, 15 Jan 2026 12:00:00 GMT"])).isIncomplete)
    #expect(try verdict(dated([])).isIncomplete)
    #expect(
      try verdict(dated(["Thu, 15 Jan 2026 12:00:00 GMT", "Thu, 15 Jan 2026 12:00:00 GMT"]))
        .isIncomplete)
  }
}

@Suite struct SignatureURLs {
  @Test func areValidUntilTheyExpire() throws {
    let url = TestSigner().presigned(expires: "300")
    for skew in [Int64(-900), 0, 300] {
      #expect(try verdict(url, at: signingNow + skew) == .known)
    }
    #expect(
      try verdict(url, at: signingNow + 301)
        == .mismatch(
          "Signature expired: 20260115T120000Z is now earlier than 20260115T120001Z "
            + "(20260115T120501Z - 5 min.)"))
    #expect(
      try verdict(url, at: signingNow - 901).message?.hasPrefix("Signature not yet current") == true
    )
    let week = TestSigner().presigned(expires: "604800")
    #expect(try verdict(week, at: signingNow + 604_800) == .known)
    let second = TestSigner().presigned(expires: "1")
    #expect(try verdict(second, at: signingNow + 1) == .known)
    #expect(
      try verdict(second, at: signingNow + 2).message?.hasSuffix("(20260115T120002Z - 1 sec.)")
        == true)
  }

  @Test(arguments: ["0", "-1", "604801", "", "1.5", "+5", "99999999999999999999", "abc"])
  func anExpiryOutOfRangeIsIncomplete(_ expires: String) throws {
    #expect(try verdict(TestSigner().presigned(expires: expires)).isIncomplete)
  }

  @Test(arguments: ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"])
  func everyParameterIsNeeded(_ name: String) throws {
    var url = TestSigner().presigned()
    url.target = url.target.split(separator: "&").filter { !$0.contains("X-Amz-\(name)=") }
      .joined(separator: "&")
    if !url.target.contains("?") { url.target = "/123456789012/demo?" + url.target }
    let verdict = try verdict(url)
    #expect(verdict.isIncomplete)
    #expect(verdict.message?.contains("'X-Amz-\(name)'") == true)
  }

  @Test func aSignedHeaderAndABodyCount() throws {
    let url = TestSigner().presigned(
      method: "POST", path: "/",
      headers: [("Host", "localhost:9324"), ("X-Amz-Target", "AmazonSQS.ListQueues")], body: "{}")
    #expect(try verdict(url) == .known)
    var other = url
    other.body = []
    #expect(try verdict(other) == .wrongSignature)
    other = TestSigner().presigned()
    other.headers = HeaderList(fields: [("Host", "localhost:9324"), ("X-Amz-Target", "x")])
    #expect(
      try verdict(other)
        == .mismatch("'x-amz-target' must be a 'SignedHeader' in the AWS Authorization."))
    #expect(
      try verdict(TestSigner(unsigned: ["host"]).presigned(headers: [("X-A", "1")])).message
        == "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
  }

  @Test func valuesMayHoldAnything() throws {
    let url = TestSigner().presigned(query: [
      ("MessageBody", "a b+c&d=e/ü~%41"), ("Empty", ""), ("a", "2"), ("a", "10"), ("a", "1"),
    ])
    #expect(try verdict(url) == .known)
    var other = url
    other.target = url.target.split(separator: "%20").joined(separator: "+")
    #expect(other.target != url.target)
    #expect(try verdict(other) == .known)
    other.target = url.target.split(separator: "%2B").joined(separator: "+")
    #expect(try verdict(other) == .wrongSignature)
  }
}

@Suite struct SignatureTokens {
  let signer = TestSigner(keyID: "ASIASESSION", secret: "second/secret", token: "the+token/==")

  @Test func theRightTokenIsTaken() throws {
    #expect(try verdict(signer.signed()) == .signed(keyID: "ASIASESSION"))
    #expect(try verdict(signer.presigned()) == .signed(keyID: "ASIASESSION"))
  }

  @Test(arguments: [nil, "", "other", "the+token/=="] as [String?])
  func anyOtherIsRefused(_ token: String?) throws {
    var other = signer
    other.token = token
    if token == "the+token/==" {
      other.keyID = "AKIDEXAMPLE"
      other.secret = signingSecret
    }
    #expect(try verdict(other.signed()) == .unknownKey)
    #expect(try verdict(other.presigned()) == .unknownKey)
  }

  @Test func anOldOneIsExpired() throws {
    var late = signer
    late.date = "20260115T125959Z"
    #expect(try verdict(late.signed(), at: signingNow + 3599) == .signed(keyID: "ASIASESSION"))
    let expired = SignatureVerdict.refused(
      status: 403, type: "ExpiredTokenException", code: "ExpiredToken",
      message: "The security token included in the request is expired.")
    #expect(try verdict(late.signed(), at: signingNow + 3600) == expired)
    #expect(try verdict(signer.presigned(expires: "86400"), at: signingNow + 3600) == expired)
  }
}

@Suite struct SignatureTexts {
  @Test(arguments: [
    ("", "/"), ("/", "/"), ("//", "/"), ("/.", "/"), ("/..", "/"), ("/../..", "/"), ("/a", "/a"),
    ("/a/", "/a/"), ("/a//b", "/a/b"), ("//a///b//", "/a/b/"), ("/a/./b", "/a/b"),
    ("/a/../b", "/b"), ("/a/b/../..", "/"), ("/a/..//", "/"), ("/a/.", "/a"), ("/a/./", "/a/"),
    ("/%2F", "/%252F"), ("/a b", "/a%20b"), ("/ü", "/%C3%BC"), ("/...", "/..."),
    ("/~a-_.", "/~a-_."),
    ("/%2e%2e/a", "/%252e%252e/a"), ("/a:b@c,+", "/a%3Ab%40c%2C%2B"), ("*", "/%2A"),
  ])
  func paths(_ path: String, _ canonical: String) {
    let bytes = CanonicalRequest.path(Array(path.utf8)[...])
    #expect(String(decoding: bytes, as: UTF8.self) == canonical)
  }

  @Test(arguments: [
    ("", ""), ("a", "a="), ("a=", "a="), ("=", "="), ("&&", ""), ("b=1&a=2", "a=2&b=1"),
    ("a=2&a=10&a=1", "a=1&a=10&a=2"), ("a=b=c", "a=b%3Dc"), ("a=%7e%20+", "a=~%20%20"),
    ("a=%zz%4", "a=%25zz%254"), ("aa=1&a=2&a-=3", "a=2&a-=3&aa=1"), ("A=1&a=1", "A=1&a=1"),
    ("a=%ff", "a=%FF"), ("%C3%BC=1&z=1", "%C3%BC=1&z=1"), ("?=/", "%3F=%2F"),
  ])
  func queries(_ query: String, _ canonical: String) {
    let bytes = CanonicalRequest.query(Array(query.utf8)[...])
    #expect(String(decoding: bytes, as: UTF8.self) == canonical)
  }

  @Test(arguments: [
    ([""], ""), (["  a  b\t\tc "], "a b c"), (["a", " b "], "a,b"), (["", ""], ","),
    (["\"a  b\""], "\"a b\""),
  ])
  func headers(_ values: [String], _ canonical: String) {
    #expect(String(decoding: CanonicalRequest.headerValue(values), as: UTF8.self) == canonical)
  }

  static let moments: [(Int64, String, String, String)] = [
    (0, "19700101T000000Z", "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
    (951_782_400, "20000229T000000Z", "2000-02-29T00:00:00Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
    (784_111_777, "19941106T084937Z", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
    (4_107_542_400, "21000301T000000Z", "2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
    (1_709_251_199, "20240229T235959Z", "2024-02-29T23:59:59Z", "Thu, 29 Feb 2024 23:59:59 GMT"),
    (-1, "19691231T235959Z", "1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 GMT"),
    (
      -62_167_219_200, "00000101T000000Z", "0000-01-01T00:00:00Z",
      "Sat, 01 Jan 0000 00:00:00 GMT"
    ),
    (
      253_402_300_799, "99991231T235959Z", "9999-12-31T23:59:59Z",
      "Fri, 31 Dec 9999 23:59:59 GMT"
    ),
  ]

  @Test(arguments: moments)
  func times(_ seconds: Int64, _ basic: String, _ extended: String, _ http: String) {
    #expect(SigningTime(basic: basic)?.seconds == seconds)
    #expect(SigningTime(extended: extended)?.seconds == seconds)
    #expect(SigningTime(extended: extended.dropLast() + "+00:00")?.seconds == seconds)
    #expect(SigningTime(http: http)?.seconds == seconds)
    #expect(SigningTime(seconds: seconds).basic == basic)
  }

  /// Every day of two eras of the calendar, there and back.
  @Test func daysComeBack() {
    var day = Int64(-719_528)
    while day < 2_932_897 {
      let time = SigningTime(seconds: day * 86_400 + 1)
      if SigningTime(basic: time.basic) != time { Issue.record("\(day)") }
      day += day < -573_000 || day > 11_000 ? 97 : 1
      if day > 25_000 { day += 400 }
    }
    #expect(SigningTime(seconds: .min).basic == "00000101T000000Z")
    #expect(SigningTime(seconds: .max).basic == "99991231T235959Z")
  }

  @Test(arguments: [
    "20230229T000000Z", "19000229T000000Z", "21000229T000000Z", "20260431T000000Z",
    "20260001T000000Z", "20260100T000000Z", "20260101T006000Z", "20260101T000060Z",
    "2026010 T000000Z", "+2026101T000000Z", "2026-101T000000Z", "20260101T0000\u{e9}",
  ])
  func nonsenseIsNoTime(_ text: String) {
    #expect(SigningTime(basic: text) == nil)
    #expect(SigningTime(extended: text) == nil)
    #expect(SigningTime(http: text) == nil)
  }

  @Test(arguments: [
    "", "Thu, 15 Jan 2026 12:00:00 UTC", "Thu 15 Jan 2026 12:00:00 GMT ",
    "Mon, 15 Jan 2026 12:00:00 GMT", "Thu, 15 jan 2026 12:00:00 GMT",
    "Thu, 15 Xyz 2026 12:00:00 GMT", "Thu, 15 Jan 2026 24:00:00 GMT",
    "Thursday, 15-Jan-26 12:00:00 ", "2026-01-15 12:00:00Z", "2026-01-15T12:00:00+01:00",
    "2026-02-30T12:00:00Z", "2026-01-15T12:00:00é", "Thu, 15 Jan 2026 12:00:0é GMT",
  ])
  func otherFormsAreNoTime(_ text: String) {
    #expect(SigningTime(extended: text) == nil)
    #expect(SigningTime(http: text) == nil)
  }
}
