// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

/// Whether one condition holds: `operator`, `key`, values as JSON.
private func holds(
  _ name: String, _ key: String, _ values: String, principal: Principal = Access.user("bob"),
  version: String = "2012-10-17", _ change: (inout AccessContext) -> Void = { _ in }
) throws -> Bool {
  let condition = #"{"\#(name)":{"\#(key)":\#(values)}}"#
  let text = Access.document(Access.statement(["Condition": condition]), version: version)
  // The queue belongs to nobody whom the request could come from.
  var request = Access.request(principal, "SendMessage", on: Access.queue, change)
  request.owner = "999999999999"
  let decision = AccessDecision.decide(
    request, queuePolicy: try AccessPolicy(text, .queue), identityPolicy: nil)
  return decision == .allowed
}

@Suite struct AccessOperators {
  /// Operator, values, text of the request, whether it holds.
  static let comparisons: [(String, String, String, Bool)] = [
    ("StringEquals", #""a""#, "a", true), ("StringEquals", #""a""#, "A", false),
    ("StringEquals", #"["x","a"]"#, "a", true), ("StringEquals", #""*""#, "a", false),
    ("StringEquals", #""*""#, "*", true), ("StringEquals", #""""#, "", true),
    ("StringEquals", "1.50", "1.50", true), ("StringEquals", "true", "true", true),
    // The same to the eye, but not the same bytes.
    ("StringEquals", #""\u00fc""#, "u\u{308}", false), ("StringEquals", #""K""#, "\u{212a}", false),
    ("StringNotEquals", #""a""#, "a", false), ("StringNotEquals", #""a""#, "b", true),
    ("StringNotEquals", #"["a","b"]"#, "b", false),
    ("StringEqualsIgnoreCase", #""aBÜ""#, "Abü", true),
    ("StringEqualsIgnoreCase", #""a""#, "b", false),
    ("StringNotEqualsIgnoreCase", #""aB""#, "Ab", false),
    ("StringNotEqualsIgnoreCase", #""aB""#, "b", true),
    ("StringLike", #""a*c""#, "abbc", true), ("StringLike", #""a*c""#, "abbcd", false),
    ("StringLike", #""a?c""#, "abc", true), ("StringLike", #""a?c""#, "ac", false),
    ("StringLike", #""?""#, "ü", true), ("StringLike", #""??""#, "ü", false),
    ("StringLike", #""*""#, "", true), ("StringLike", #""?*""#, "", false),
    ("StringLike", #""*ab*ab""#, "abaab", true), ("StringLike", #""*ab*ab""#, "aab", false),
    ("StringLike", #""*aab""#, "aaaab", true), ("StringLike", #""a**b""#, "ab", true),
    ("StringLike", #""ab*ba""#, "aba", false), ("StringLike", #""ab*ba""#, "abba", true),
    ("StringLike", #""*ü""#, "aü", true), ("StringLike", #""*ü""#, "ü¼", false),
    ("StringLike", #""*?ü""#, "üü", true), ("StringLike", #""*?c*""#, "abcd", true),
    ("StringLike", #""*?c*""#, "cd", false),
    ("StringLike", #""A*""#, "abc", false), ("StringLike", #""""#, "", true),
    ("StringLike", #"["x*","a*"]"#, "abc", true),
    ("StringNotLike", #""a*""#, "abc", false), ("StringNotLike", #""a*""#, "b", true),
    ("NumericEquals", "5", "5", true), ("NumericEquals", #""5.0""#, "5", true),
    ("NumericEquals", "5e0", "5", true), ("NumericEquals", "5", "6", false),
    ("NumericEquals", "5", "x", false), ("NumericEquals", "5", "", false),
    ("NumericEquals", "9007199254740993", "9007199254740992", false),
    ("NumericEquals", "[4,5]", "5", true), ("NumericEquals", "-5", "-5", true),
    ("NumericNotEquals", "5", "5", false), ("NumericNotEquals", "5", "6", true),
    ("NumericNotEquals", "5", "x", true),
    ("NumericLessThan", "5", "4", true), ("NumericLessThan", "5", "5", false),
    ("NumericLessThan", "10", "9", true), ("NumericLessThan", "5", "x", false),
    ("NumericLessThanEquals", "5", "5", true), ("NumericLessThanEquals", "5", "5.1", false),
    ("NumericGreaterThan", "5", "6", true), ("NumericGreaterThan", "5", "5", false),
    ("NumericGreaterThanEquals", "5", "5", true), ("NumericGreaterThanEquals", "5", "4", false),
    ("DateEquals", #""2026-05-04T00:00:00Z""#, "2026-05-04", true),
    ("DateEquals", #""2026-05-04T00:00:00Z""#, "1777852800", true),
    ("DateEquals", "1777852800", "2026-05-04T02:00+02:00", true),
    ("DateEquals", #""2026-05-04""#, "2026-05-04T00:00:00.001Z", false),
    ("DateEquals", #""2026-05-04""#, "today", false),
    ("DateEquals", #""2026""#, "2026-01-01", true),
    ("DateEquals", #""2026-02""#, "2026-02-01", true),
    ("DateEquals", #""0""#, "1970-01-01", true), ("DateEquals", #""1969-12-31""#, "0", false),
    ("DateEquals", #""2024-02-29""#, "1709164800", true),
    ("DateEquals", #""2000-03-01""#, "951868800", true),
    ("DateNotEquals", #""2026-05-04""#, "2026-05-04", false),
    ("DateNotEquals", #""2026-05-04""#, "2026-05-05", true),
    ("DateLessThan", #""2026-05-04""#, "2026-05-03T23:59:59.999Z", true),
    ("DateLessThan", #""2026-05-04""#, "2026-05-04", false),
    ("DateLessThan", #""2026-05-04""#, "2026-05-04T00:30:00+01:00", true),
    ("DateLessThanEquals", #""2026-05-04""#, "2026-05-04", true),
    ("DateLessThanEquals", #""2026-05-04""#, "2026-05-04T00:00:01Z", false),
    ("DateGreaterThan", #""2026-05-04""#, "2026-05-03T23:30:00-01:00", true),
    ("DateGreaterThan", #""2026-05-04""#, "2026-05-04", false),
    ("DateGreaterThanEquals", #""2026-05-04""#, "2026-05-04", true),
    ("DateGreaterThanEquals", #""2026-05-04""#, "2026-05-03", false),
    ("Bool", "true", "true", true), ("Bool", #""True""#, "true", true),
    ("Bool", "false", "true", false), ("Bool", "[true,false]", "true", true),
    ("Bool", "true", "1", false), ("Bool", "false", "x", false),
    ("IpAddress", #""10.0.0.0/8""#, "10.255.0.1", true),
    ("IpAddress", #""10.0.0.0/8""#, "11.0.0.1", false),
    ("IpAddress", #""10.1.2.3/8""#, "10.9.9.9", true),
    ("IpAddress", #""10.1.2.3""#, "10.1.2.3", true),
    ("IpAddress", #""10.1.2.3""#, "10.1.2.4", false),
    ("IpAddress", #""10.1.2.2/31""#, "10.1.2.3", true),
    ("IpAddress", #""10.1.2.2/31""#, "10.1.2.4", false),
    ("IpAddress", #""0.0.0.0/0""#, "203.0.113.9", true),
    ("IpAddress", #""0.0.0.0/0""#, "2001:db8::1", false),
    ("IpAddress", #""::/0""#, "2001:db8::1", true), ("IpAddress", #""::/0""#, "10.0.0.1", false),
    ("IpAddress", #""10.0.0.0/8""#, "::ffff:10.0.0.1", true),
    ("IpAddress", #""::ffff:10.0.0.0/104""#, "10.200.0.1", true),
    ("IpAddress", #""::ffff:10.0.0.0/104""#, "11.200.0.1", false),
    ("IpAddress", #""2001:db8::/32""#, "2001:DB8:ffff::1", true),
    ("IpAddress", #""2001:db8::/32""#, "2001:db9::1", false),
    ("IpAddress", #""2001:db8:0:0:8000::/65""#, "2001:db8::8000:0:0:1", true),
    ("IpAddress", #""2001:db8:0:0:8000::/65""#, "2001:db8::7000:0:0:1", false),
    ("IpAddress", #""2001:db8::1""#, "2001:db8:0:0:0:0:0:1", true),
    ("IpAddress", #""fe80::/10""#, "fe80::1%eth0", true),
    ("IpAddress", #""::1""#, "::1", true), ("IpAddress", #""::1""#, "::2", false),
    ("IpAddress", #""0.0.0.0/0""#, "10.0.0", false), ("IpAddress", #""0.0.0.0/0""#, "", false),
    ("IpAddress", #""::/0""#, "1:2:3:4:5:6:7", false), ("IpAddress", #""::/0""#, ":::", false),
    ("IpAddress", #""::/0""#, "1::2::3", false), ("IpAddress", #""::/0""#, "12345::", false),
    ("IpAddress", #""::/0""#, "1:2:3:4:5:6:7:8:9", false),
    ("IpAddress", #""::/0""#, "1::1.2.3.4:5", false),
    ("IpAddress", #"["10.0.0.0/8","192.0.2.0/24"]"#, "192.0.2.7", true),
    ("NotIpAddress", #""10.0.0.0/8""#, "10.0.0.1", false),
    ("NotIpAddress", #""10.0.0.0/8""#, "11.0.0.1", true),
    ("NotIpAddress", #"["10.0.0.0/8","11.0.0.0/8"]"#, "11.0.0.1", false),
    ("NotIpAddress", #""10.0.0.0/8""#, "nowhere", true),
    ("ArnEquals", #""arn:aws:sns:us-east-1:1:t""#, "arn:aws:sns:us-east-1:1:t", true),
    ("ArnEquals", #""arn:aws:sns:*:1:t*""#, "arn:aws:sns:us-east-1:1:topic", true),
    ("ArnEquals", #""arn:aws:sns:us-east-1:1:t""#, "arn:aws:sns:us-east-1:1:T", false),
    ("ArnLike", #""arn:aws:sns:*:1:t""#, "arn:aws:sns:us-east-1:2:1:t", false),
    ("ArnLike", #""arn:aws:sns:*:1:*""#, "arn:aws:sns:us-east-1:1:a:b", true),
    ("ArnLike", #""arn:aws:s3:::b?""#, "arn:aws:s3:::bc", true),
    ("ArnLike", #""arn:aws:s3:::b?""#, "arn:aws:s3:::b", false),
    ("ArnLike", #""arn:aws:s3:*""#, "arn:aws:s3:::bucket", true),
    ("ArnLike", #""arn:aws:s3""#, "arn:aws:s3:::bucket", false),
    ("ArnLike", #""arn:aws:s3:::b""#, "arn:aws:s3", false),
    ("ArnLike", #""*""#, "whatever", true), ("ArnLike", #""**""#, "whatever", true),
    ("ArnNotEquals", #""arn:aws:s3:::b""#, "arn:aws:s3:::b", false),
    ("ArnNotEquals", #""arn:aws:s3:::b""#, "arn:aws:s3:::c", true),
    ("ArnNotLike", #""arn:aws:s3:::b*""#, "arn:aws:s3:::bc", false),
    ("ArnNotLike", #""arn:aws:s3:::b*""#, "arn:aws:s3:::c", true),
    ("Null", "true", "x", false), ("Null", #""false""#, "", true),
    ("Null", "[true,false]", "x", true),
    ("StringEqualsIfExists", #""a""#, "a", true), ("StringEqualsIfExists", #""a""#, "b", false),
    ("ArnLikeIfExists", #""arn:aws:s3:::b""#, "arn:aws:s3:::c", false),
    ("ForAnyValue:StringEquals", #""a""#, "a", true),
    ("ForAnyValue:StringEquals", #""a""#, "b", false),
    ("ForAllValues:StringEquals", #""a""#, "a", true),
    ("ForAllValues:StringEquals", #""a""#, "b", false),
  ]

  @Test(arguments: comparisons)
  func eachCompares(_ name: String, _ values: String, _ text: String, _ expected: Bool) throws {
    #expect(try holds(name, "aws:SourceVpce", values) { $0.sourceVPCE = text } == expected)
  }

  static let plain: [(String, String)] = [
    ("StringEquals", #""a""#), ("StringEqualsIgnoreCase", #""a""#), ("StringLike", #""*""#),
    ("NumericEquals", "1"), ("NumericLessThan", "1"), ("NumericLessThanEquals", "1"),
    ("NumericGreaterThan", "1"), ("NumericGreaterThanEquals", "1"), ("DateEquals", "1"),
    ("DateLessThan", "1"), ("DateLessThanEquals", "1"), ("DateGreaterThan", "1"),
    ("DateGreaterThanEquals", "1"), ("Bool", "[true,false]"), ("IpAddress", #""::/0""#),
    ("ArnEquals", #""*""#), ("ArnLike", #""*""#),
  ]

  @Test(arguments: plain)
  func aMissingKeyMakesItFalse(_ name: String, _ values: String) throws {
    for key in ["aws:SourceVpce", "aws:TagKeys", "no:such"] {
      #expect(try !holds(name, key, values))
      #expect(try holds(name + "IfExists", key, values))
      #expect(try !holds("ForAnyValue:" + name, key, values))
      #expect(try holds("ForAnyValue:\(name)IfExists", key, values))
      #expect(try holds("ForAllValues:" + name, key, values))
    }
  }

  static let negated: [(String, String)] = [
    ("StringNotEquals", #""a""#), ("StringNotEqualsIgnoreCase", #""a""#),
    ("StringNotLike", #""*""#), ("NumericNotEquals", "1"), ("DateNotEquals", "1"),
    ("NotIpAddress", #""::/0""#), ("ArnNotEquals", #""*""#), ("ArnNotLike", #""*""#),
  ]

  @Test(arguments: negated)
  func aMissingKeyMakesANegatedOneTrue(_ name: String, _ values: String) throws {
    for key in ["aws:SourceVpce", "aws:TagKeys", "no:such"] {
      #expect(try holds(name, key, values))
      #expect(try holds(name + "IfExists", key, values))
      #expect(try !holds("ForAnyValue:" + name, key, values))
      #expect(try holds("ForAllValues:" + name, key, values))
    }
  }

  @Test func nullAsksForAMissingKey() throws {
    #expect(try holds("Null", "aws:SourceVpce", "true"))
    #expect(try !holds("Null", "aws:SourceVpce", "false"))
    #expect(try holds("Null", "aws:TagKeys", "true"))
    #expect(try holds("Null", "aws:TagKeys", "false") { $0.tagKeys = ["a"] })
  }

  /// Operator, values, tag keys of the request, whether it holds.
  static let lists: [(String, String, [String], Bool)] = [
    ("ForAllValues:StringEquals", #"["a","b"]"#, ["a", "b"], true),
    ("ForAllValues:StringEquals", #"["a","b"]"#, ["a", "c"], false),
    ("ForAnyValue:StringEquals", #"["a","b"]"#, ["c", "b"], true),
    ("ForAnyValue:StringEquals", #"["a","b"]"#, ["c", "d"], false),
    ("ForAllValues:StringNotEquals", #"["a","b"]"#, ["c", "d"], true),
    ("ForAllValues:StringNotEquals", #"["a","b"]"#, ["c", "a"], false),
    ("ForAnyValue:StringNotEquals", #"["a","b"]"#, ["a", "c"], true),
    ("ForAnyValue:StringNotEquals", #"["a","b"]"#, ["a", "b"], false),
    ("ForAllValues:StringLike", #""x*""#, ["xa", "xb"], true),
    ("ForAllValues:StringLike", #""x*""#, ["xa", "b"], false),
    ("ForAllValues:NumericLessThan", "5", ["1", "4"], true),
    ("ForAllValues:NumericLessThan", "5", ["1", "5"], false),
    // Without a prefix any value will do, and for a negated operator none may.
    ("StringEquals", #""a""#, ["b", "a"], true), ("StringEquals", #""a""#, ["b", "c"], false),
    ("StringNotEquals", #""a""#, ["b", "a"], false), ("StringNotEquals", #""a""#, ["b"], true),
  ]

  @Test(arguments: lists)
  func severalValues(
    _ name: String, _ values: String, _ keys: [String], _ expected: Bool
  ) throws {
    #expect(try holds(name, "aws:TagKeys", values) { $0.tagKeys = keys } == expected)
  }

  @Test func allConditionsMustHold() throws {
    func allowed(_ condition: String) throws -> Bool {
      try Access.allows(
        ["Condition": condition],
        Access.request {
          $0.sourceIP = "10.0.0.1"
          $0.isSecure = true
          $0.userAgent = "x"
        })
    }
    let address = #""IpAddress":{"aws:SourceIp":"10.0.0.0/8"}"#
    #expect(try allowed("{}"))
    #expect(try allowed(#"{\#(address),"Bool":{"aws:SecureTransport":"true"}}"#))
    #expect(try !allowed(#"{\#(address),"Bool":{"aws:SecureTransport":"false"}}"#))
    #expect(
      try allowed(#"{\#(address),"StringLike":{"aws:UserAgent":"x","aws:PrincipalArn":"*bob"}}"#))
    #expect(
      try !allowed(#"{\#(address),"StringLike":{"aws:UserAgent":"y","aws:PrincipalArn":"*bob"}}"#))
    #expect(
      try !allowed(#"{\#(address),"StringLike":{"aws:UserAgent":"x","aws:PrincipalArn":"*al"}}"#))
  }
}

@Suite struct AccessKeys {
  static func fill(_ context: inout AccessContext) {
    context.sourceIP = "192.0.2.1"
    context.isSecure = true
    context.userAgent = "Boto3/1.40"
    context.sourceARN = "arn:aws:sns:us-east-1:123456789012:t"
    context.sourceAccount = "123456789012"
    context.sourceVPCE = "vpce-1"
    context.principalOrgID = "o-1"
    context.principalTags = [("Team", "blue"), ("team2", "red")]
    context.requestTags = [("Cost", "7")]
    context.tagKeys = ["Other"]
    context.multiFactorAuthAge = 60
    context.isMultiFactorAuthPresent = false
    context.tokenIssueTime = 951_868_800_123
  }

  static let rows: [(String, String)] = [
    ("aws:CurrentTime", "2026-05-04T03:02:01Z"), ("aws:EpochTime", "1777863721"),
    ("aws:SecureTransport", "true"), ("aws:SourceAccount", "123456789012"),
    ("aws:SourceArn", "arn:aws:sns:us-east-1:123456789012:t"), ("aws:SourceIp", "192.0.2.1"),
    ("aws:UserAgent", "Boto3/1.40"), ("aws:PrincipalArn", "arn:aws:iam::123456789012:user/bob"),
    ("aws:PrincipalAccount", "123456789012"), ("aws:PrincipalOrgID", "o-1"),
    ("aws:PrincipalTag/Team", "blue"), ("aws:PrincipalTag/Team2", "red"),
    ("aws:RequestTag/Cost", "7"), ("aws:TagKeys", "Cost"), ("aws:TagKeys", "Other"),
    ("aws:SourceVpce", "vpce-1"), ("aws:MultiFactorAuthAge", "60"),
    ("aws:MultiFactorAuthPresent", "false"), ("aws:TokenIssueTime", "2000-03-01T00:00:00Z"),
  ]

  /// Names of keys have no case, those of tags among them.
  @Test(arguments: rows)
  func eachIsThere(_ key: String, _ value: String) throws {
    for key in [key, key.lowercased(), key.uppercased()] {
      #expect(try holds("StringEquals", key, "\"\(value)\"", Self.fill))
      #expect(try !holds("StringEquals", key, "\"\(value)x\"", Self.fill))
      #expect(try holds("Null", key, "false", Self.fill))
    }
  }

  @Test(
    arguments: rows.map(\.0) + ["aws:PrincipalTag/None", "aws:RequestTag/", "aws:username", ""])
  func eachIsMissingWhenTheRequestLacksIt(_ key: String) throws {
    let isAlwaysThere = key == "aws:CurrentTime" || key == "aws:EpochTime"
    for principal in [Principal.anonymous, .service("sns.amazonaws.com")] {
      #expect(try holds("Null", key, "true", principal: principal) == !isAlwaysThere)
    }
  }

  @Test func timesAreComparedAsSuch() throws {
    for key in ["aws:CurrentTime", "aws:EpochTime"] {
      #expect(try holds("DateGreaterThan", key, #""2026-05-04T03:02:00Z""#))
      #expect(try !holds("DateGreaterThan", key, #""2026-05-04T03:02:01Z""#))
      #expect(try holds("DateLessThan", key, #""2026-05-04T04:02:02+01:00""#))
    }
    #expect(try holds("NumericGreaterThan", "aws:EpochTime", "1777863720"))
  }

  static let times: [(Int64, String)] = [
    (0, "1970-01-01T00:00:00Z"), (951_782_399_000, "2000-02-28T23:59:59Z"),
    (951_782_400_000, "2000-02-29T00:00:00Z"), (951_868_800_000, "2000-03-01T00:00:00Z"),
    (1_735_689_599_999, "2024-12-31T23:59:59Z"), (4_107_542_400_000, "2100-03-01T00:00:00Z"),
    (4_107_542_399_000, "2100-02-28T23:59:59Z"), (Int64.max, "9999-12-31T23:59:59Z"),
    (Int64.min, "1970-01-01T00:00:00Z"),
  ]

  @Test(arguments: times)
  func timesAsText(_ time: Int64, _ text: String) throws {
    #expect(try holds("StringEquals", "aws:CurrentTime", "\"\(text)\"") { $0.time = time })
  }

  /// A session is known by the role, as in Amazon's.
  @Test func thePrincipalOfASessionIsItsRole() throws {
    let session = Access.session(of: "worker")
    #expect(
      try holds(
        "ArnEquals", "aws:PrincipalArn", #""arn:aws:iam::123456789012:role/worker""#,
        principal: session))
  }

  static let unreadable: [String] = [
    #""DateEquals":"2026-02-29""#, #""DateEquals":"2026-00-01""#, #""DateEquals":"2026-1-01""#,
    #""DateEquals":"2026-01-01T24:00Z""#, #""DateEquals":"2026-01-01T00:60Z""#,
    #""DateEquals":"2026-01-01T00:00:60Z""#, #""DateEquals":"2026-01-01T00:00:00.Z""#,
    #""DateEquals":"2026-01-01T00:00:00Zx""#, #""DateEquals":"2026-01-01 00:00:00""#,
    #""DateEquals":"2026-01-01T""#, #""DateEquals":"-5""#, #""DateEquals":"""#,
    #""DateEquals":"99999999999999999999""#, #""DateEquals":"100000000000""#,
    #""NumericEquals":"""#, #""NumericEquals":"1e""#, #""NumericEquals":"nan""#,
    #""NumericEquals":"1e999""#, #""NumericEquals":"1 ""#, #""NumericEquals":true"#,
    #""IpAddress":"10.0.0.1/""#, #""IpAddress":"10.0.0.1/+8""#, #""IpAddress":"10.0.0.01""#,
    #""IpAddress":"10.0.0.256""#, #""IpAddress":"10.0.0.0.0""#, #""IpAddress":"*""#,
    #""IpAddress":"::/129""#, #""IpAddress":"fe80::1%eth0""#, #""IpAddress":"1:2""#,
    #""IpAddress":"/8""#, #""IpAddress":"10.0.0.0/8/8""#, #""IpAddress":"""#,
  ]

  @Test(arguments: unreadable)
  func valuesThatCannotBeReadAreRefused(_ row: String) {
    let parts = row.split(separator: ":", maxSplits: 1)
    let condition = #"{\#(parts[0]):{"aws:CurrentTime":\#(parts[1])}}"#
    #expect(Access.error(Access.document(Access.statement(["Condition": condition]))) != nil)
  }
}

@Suite struct AccessVariables {
  @Test func takeTheirValueFromTheRequest() throws {
    #expect(
      try holds("StringLike", "aws:PrincipalArn", #""arn:aws:iam::${aws:PrincipalAccount}:*""#))
    #expect(
      try holds("StringEquals", "aws:SourceAccount", #""${AWS:principalaccount}""#) {
        $0.sourceAccount = Access.owner
      })
    #expect(
      try !holds("StringEquals", "aws:SourceAccount", #""${aws:PrincipalAccount}""#) {
        $0.sourceAccount = Access.other
      })
    #expect(
      try holds("ArnLike", "aws:SourceArn", #""arn:aws:sns:*:${aws:PrincipalAccount}:*""#) {
        $0.sourceARN = "arn:aws:sns:us-east-1:\(Access.owner):t"
      })
    #expect(
      try holds("StringEqualsIgnoreCase", "aws:UserAgent", #""X${aws:SourceVpce}y""#) {
        $0.sourceVPCE = "Ab"
        $0.userAgent = "xaBY"
      })
  }

  @Test func resourcesMayHaveThem() throws {
    let members = ["Resource": #""arn:aws:sqs:*:*:${aws:PrincipalTag/queue}""#]
    func allowed(_ queue: String) throws -> Bool {
      try Access.allows(members, Access.request { $0.principalTags = [("queue", queue)] })
    }
    #expect(try allowed("demo"))
    #expect(try !allowed("other"))
    // What a request says is never a pattern.
    #expect(try !allowed("*"))
    #expect(try !allowed("dem?"))
    #expect(try !Access.allows(members, Access.request()))
  }

  @Test func ofTheSpecialCharactersStandForThemselves() throws {
    for (value, text) in [("a${*}", "a*"), ("a${?}", "a?"), ("${$}{x}", "${x}")] {
      #expect(
        try holds("StringLike", "aws:UserAgent", "\"\(value)\"") { $0.userAgent = text })
      #expect(
        try !holds("StringLike", "aws:UserAgent", "\"\(value)\"") { $0.userAgent = "ab" })
    }
  }

  /// One that the request lacks matches nothing.
  @Test func missing() throws {
    let value = #""${aws:SourceVpce}""#
    #expect(try !holds("StringLike", "aws:UserAgent", value) { $0.userAgent = "" })
    #expect(try holds("StringNotLike", "aws:UserAgent", value) { $0.userAgent = "" })
    #expect(
      try !holds("StringEquals", "aws:UserAgent", #""${aws:TagKeys}""#) {
        $0.userAgent = "a"
        $0.tagKeys = ["a"]
      })
  }

  @Test func theOldVersionHasNone() throws {
    #expect(
      try holds("StringEquals", "aws:UserAgent", #""${aws:SourceVpce}""#, version: "2008-10-17") {
        $0.userAgent = "${aws:SourceVpce}"
      })
  }
}
