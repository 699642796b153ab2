// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

@Suite struct ReadingAccessPolicies {
  @Test func blanksGoAndAllElseStays() throws {
    let policy = try AccessPolicy(
      """
      { "Id" : "a \\" b\\\\" , "Version":"2012-10-17",\t"Statement" : {
        "Principal": {"AWS": [ "123456789012", "*" ]}, "Sid": "ü \\u00fc",
        "Condition": {"NumericLessThan": {"aws:EpochTime": 1.50e3}, "Bool": {"a:b": [true, false]}},
        "Action": "sqs:*", "Effect": "Allow" } }
      """, .queue)
    let expected =
      #"{"Id":"a \" b\\","Version":"2012-10-17","Statement":{"#
      + #""Principal":{"AWS":["123456789012","*"]},"Sid":"ü \u00fc","#
      + #""Condition":{"NumericLessThan":{"aws:EpochTime":1.50e3},"Bool":{"a:b":[true,false]}},"#
      + #""Action":"sqs:*","Effect":"Allow"}}"#
    #expect(policy.text == expected)
    #expect(try AccessPolicy(policy.text, .queue).text == policy.text)
  }

  static let noPolicies: [String] = [
    "", "{", "[]", "null", "\"*\"", "{}", #"{"Statement":[]}"#, #"{"Statement":null}"#,
    #"{"Statement":"x"}"#, #"{"Statement":[[]]}"#,
    Access.document(Access.statement(), version: "2012-10-18"),
    Access.document(Access.statement()) + " x",
    #"{"Version":1,"Statement":[\#(Access.statement())]}"#,
    #"{"Id":null,"Statement":[\#(Access.statement())]}"#,
    #"{"Other":1,"Statement":[\#(Access.statement())]}"#,
    #"{"statement":[\#(Access.statement())]}"#,
    #"{"Statement":[\#(Access.statement())],"Statement":[\#(Access.statement())]}"#,
  ]

  @Test(arguments: noPolicies)
  func whatIsNoPolicyIsRefused(_ text: String) {
    #expect(Access.error(text) != nil)
  }

  /// Member, its value ("" takes the member away), and what the error says.
  static let errors: [(String, String, String)] = [
    ("Sid", "1", "Statement[0]: Sid: not a text"),
    ("Effect", "", "Statement[0]: Effect is missing"),
    ("Effect", #""allow""#, "Statement[0]: Effect: neither Allow nor Deny"),
    ("Effect", "[\"Allow\"]", "Statement[0]: Effect: not a text"),
    ("Principal", "", "Statement[0]: Principal is missing"),
    ("Principal", #""123456789012""#, "Statement[0]: Principal: a text other than *"),
    ("Principal", "{}", "Statement[0]: Principal: empty"),
    ("Principal", "[\"*\"]", "Statement[0]: Principal: not an object"),
    ("Principal", #"{"AWS":[]}"#, "Statement[0]: Principal.AWS: an empty list"),
    ("Principal", #"{"AWS":[1]}"#, "Statement[0]: Principal.AWS: not a text"),
    (
      "Principal", #"{"AWS":"12345"}"#,
      """
      Statement[0]: Principal.AWS: "12345" is neither *, an account nor the ARN of a user or role
      """
    ),
    (
      "Principal", #"{"AWS":"arn:aws:iam::123456789012:user/*"}"#,
      """
      Statement[0]: Principal.AWS: "arn:aws:iam::123456789012:user/*" is neither *, an account nor \
      the ARN of a user or role
      """
    ),
    (
      "Principal", #"{"Service":"*"}"#,
      "Statement[0]: Principal.Service: \"*\" is not the name of a service"
    ),
    (
      "Principal", #"{"Federated":"x"}"#,
      "Statement[0]: Principal: no member is called \"Federated\""
    ),
    ("NotPrincipal", #""*""#, "Statement[0]: both Principal and NotPrincipal"),
    ("Action", "", "Statement[0]: Action is missing"),
    ("Action", "[]", "Statement[0]: Action: an empty list"),
    ("Action", "{}", "Statement[0]: Action: not a text"),
    (
      "Action", #""SendMessage""#,
      "Statement[0]: Action: \"SendMessage\" is not of the form sqs:Action"
    ),
    ("Action", #""sqs:""#, "Statement[0]: Action: \"sqs:\" is not of the form sqs:Action"),
    ("Action", #""s3:Get""#, "Statement[0]: Action: \"s3:Get\" is of another service"),
    ("NotAction", #""*""#, "Statement[0]: both Action and NotAction"),
    ("Resource", "[]", "Statement[0]: Resource: an empty list"),
    ("Resource", #""demo""#, "Statement[0]: Resource: \"demo\" is neither * nor an ARN"),
    ("Resource", #""arn:aws:sqs:${aws:x""#, "Statement[0]: Resource: a variable without an end"),
    ("Condition", "[]", "Statement[0]: Condition: not an object"),
    ("Condition", "null", "Statement[0]: Condition: not an object"),
    (
      "Condition", #"{"Equals":{"a":"b"}}"#,
      "Statement[0]: Condition.Equals: there is no such operator"
    ),
    (
      "Condition", #"{"stringEquals":{"a":"b"}}"#,
      "Statement[0]: Condition.stringEquals: there is no such operator"
    ),
    (
      "Condition", #"{"NullIfExists":{"a":"true"}}"#,
      "Statement[0]: Condition.NullIfExists: there is no such operator"
    ),
    (
      "Condition", #"{"ForAnyValue:ForAllValues:Bool":{"a":"true"}}"#,
      "Statement[0]: Condition.ForAnyValue:ForAllValues:Bool: there is no such operator"
    ),
    ("Condition", #"{"Bool":{}}"#, "Statement[0]: Condition.Bool: empty"),
    ("Condition", #"{"Bool":{"a":[]}}"#, "Statement[0]: Condition.Bool.a: an empty list"),
    ("Condition", #"{"Bool":{"a":{}}}"#, "Statement[0]: Condition.Bool.a: not a text"),
    ("Condition", #"{"Bool":{"a":1,"A":1}}"#, "Statement[0]: Condition.Bool: A comes twice"),
    (
      "Condition", #"{"Bool":{"a":"yes"}}"#,
      "Statement[0]: Condition.Bool.a: \"yes\" is not true or false"
    ),
    (
      "Condition", #"{"Null":{"a":"1"}}"#,
      "Statement[0]: Condition.Null.a: \"1\" is not true or false"
    ),
    (
      "Condition", #"{"NumericEquals":{"a":"0x1"}}"#,
      "Statement[0]: Condition.NumericEquals.a: \"0x1\" is not a number"
    ),
    (
      "Condition", #"{"DateLessThan":{"a":"2026-13-01"}}"#,
      "Statement[0]: Condition.DateLessThan.a: \"2026-13-01\" is not a date"
    ),
    (
      "Condition", #"{"IpAddress":{"a":"10.0.0.0/33"}}"#,
      "Statement[0]: Condition.IpAddress.a: \"10.0.0.0/33\" is not an address or a range of them"
    ),
    (
      "Condition", #"{"StringLike":{"a":"${aws:x, 'y'}"}}"#,
      "Statement[0]: Condition.StringLike.a: default values of variables are not supported"
    ),
    (
      "Condition", #"{"StringLike":{"a":"\ud800"}}"#,
      "Statement[0]: Condition.StringLike.a: half of a character"
    ),
    ("Other", "1", "Statement[0]: the statement: no member is called \"Other\""),
  ]

  @Test(arguments: errors)
  func errorsSayWhatAndWhere(_ member: String, _ value: String, _ message: String) {
    #expect(Access.error(Access.document(Access.statement([member: value])))?.message == message)
  }

  @Test func errorsNameTheirStatement() {
    let text = Access.document(Access.statement(), Access.statement(["Effect": ""]))
    #expect(Access.error(text)?.message == "Statement[1]: Effect is missing")
    let one = #"{"Statement":\#(Access.statement(["Effect": ""]))}"#
    #expect(Access.error(one)?.message == "Statement: Effect is missing")
  }

  static let statements: [String] = [
    Access.statement(), Access.statement(["Sid": #""""#, "Condition": "{}"]),
    Access.statement(["Principal": "", "NotPrincipal": #"{"AWS":"123456789012"}"#]),
    Access.statement(["Action": "", "NotAction": #"["SQS:SendMessage","sqs:Get*"]"#]),
    Access.statement(["NotResource": #"["arn:aws:sqs:*:*:x","*"]"#]),
    Access.statement([
      "Principal": #"{"AWS":["*","arn:aws:iam::123456789012:root"],"Service":"sns.amazonaws.com"}"#
    ]),
    Access.statement(["Condition": #"{"StringEquals":{"any:Key":["a",1,true]}}"#]),
  ]

  @Test(arguments: statements)
  func whatMayComeMayCome(_ statement: String) {
    #expect(Access.error(Access.document(statement)) == nil)
    #expect(Access.error(#"{"Statement":\#(statement)}"#) == nil)
    #expect(Access.error(Access.document(statement, version: "2008-10-17")) == nil)
  }

  @Test func policiesOfPrincipalsNameAResourceAndNoPrincipal() {
    func error(_ members: [String: String]) -> String? {
      Access.error(Access.document(Access.statement(members)), .identity)?.message
    }
    #expect(error(["Principal": "", "Resource": #""*""#]) == nil)
    #expect(error(["Principal": "", "NotResource": #""arn:aws:sqs:*""#]) == nil)
    #expect(error(["Principal": ""]) == "Statement[0]: Resource is missing")
    #expect(
      error(["Resource": #""*""#]) == "Statement[0]: Principal: a policy of a principal has none")
    #expect(
      error(["Principal": "", "NotPrincipal": #""*""#, "Resource": #""*""#])
        == "Statement[0]: NotPrincipal: a policy of a principal has none")
    #expect(
      error(["Principal": "", "Resource": #""*""#, "Action": #"["s3:GetObject","sqs:*"]"#]) == nil)
  }
}

@Suite struct LimitsOfAccessPolicies {
  static func list(_ count: Int, _ element: (Int) -> String) -> String {
    (0..<count).map(element).joined(separator: ",")
  }

  static func padded(to count: Int, _ members: [String: String] = [:]) -> String {
    let text = Access.document(Access.statement(members.merging(["Sid": #""@""#]) { $1 }))
    let pad = String(repeating: "x", count: count - text.utf8.count + 1)
    return text.split(separator: "@").joined(separator: pad)
  }

  @Test func bytes() {
    #expect(Access.error(Self.padded(to: 8192)) == nil)
    #expect(
      Access.error(Self.padded(to: 8193))?.message
        == "the policy has 8193 bytes, max allowed is 8192")
    let members = ["Principal": "", "Resource": #""*""#]
    #expect(Access.error(Self.padded(to: 32768, members), .identity) == nil)
    #expect(Access.error(Self.padded(to: 32769, members), .identity) != nil)
  }

  @Test func statements() {
    func text(_ count: Int) -> String {
      #"{"Statement":[\#(Self.list(count) { _ in Access.statement() })]}"#
    }
    #expect(Access.error(text(20)) == nil)
    let error = Access.error(text(21))
    #expect(error?.statements == 21)
    #expect(
      error?.message == "21 statements were found in the submitted policy, max allowed is 20")
    // The number comes before what is wrong inside.
    let broken = #"{"Statement":[\#(Self.list(30) { _ in "1" })]}"#
    #expect(Access.error(broken)?.statements == 30)
    #expect(Access.error(#"{"Statement":1}"#)?.statements == nil)
  }

  @Test func principals() {
    func text(_ count: Int) -> String {
      let list = Self.list(count - 1) { #""\#(100_000_000_000 + $0)""# }
      return Access.document(
        Access.statement(["Principal": #"{"AWS":[\#(list)],"Service":"a.b"}"#]))
    }
    #expect(Access.error(text(50)) == nil)
    #expect(
      Access.error(text(51))?.message
        == "Statement[0]: Principal: 51 principals were found, max allowed is 50")
  }

  @Test func actions() {
    func text(_ count: Int) -> String {
      Access.document(
        Access.statement(["Action": "[\(Self.list(count) { #""sqs:A\#($0)""# })]"]))
    }
    #expect(Access.error(text(7)) == nil)
    #expect(
      Access.error(text(8))?.message
        == "Statement[0]: Action: 8 actions were found, max allowed is 7")
  }

  /// A condition is a key of an operator.
  @Test func conditions() {
    func text(_ count: Int) -> String {
      let keys = Self.list(count - 1) { #""a:\#($0)":"x""# }
      return Access.document(
        Access.statement(["Condition": #"{"Bool":{"a:b":true},"StringLike":{\#(keys)}}"#]))
    }
    #expect(Access.error(text(10)) == nil)
    #expect(
      Access.error(text(11))?.message
        == "Statement[0]: Condition: 11 conditions were found, max allowed is 10")
  }

  /// Those of the API are about policies of queues.
  @Test func policiesOfPrincipalsHaveOnlyThatOfBytes() {
    let statement = Access.statement([
      "Principal": "", "Resource": #""*""#,
      "Action": "[\(Self.list(30) { #""sqs:A\#($0)""# })]",
      "Condition": #"{"StringLike":{\#(Self.list(30) { #""a:\#($0)":"x""# })}}"#,
    ])
    let text = #"{"Statement":[\#(Self.list(25) { _ in statement })]}"#
    #expect(Access.error(text, .identity) == nil)
  }
}

/// Nothing here may take noticeable time, let alone end the process.
@Suite struct HostileAccessPolicies {
  @Test func deepNesting() {
    for open in ["[", "{\"Statement\":", #"{"Condition":{"Bool":"#] {
      let text = String(repeating: open, count: 8192 / open.utf8.count)
      #expect(Access.error(text) != nil)
    }
    let list = String(repeating: "[", count: 25) + String(repeating: "]", count: 25)
    for member in ["Sid", "Principal", "Action", "Resource", "Condition"] {
      #expect(Access.error(Access.document(Access.statement([member: list]))) != nil)
    }
  }

  @Test(arguments: ["*", "*?", "?", "*a", "a*", "*a?b"])
  func longPatternsAgainstLongTexts(_ unit: String) throws {
    let pattern = String(repeating: unit, count: 7800 / unit.utf8.count) + "z"
    let agent = String(repeating: "a", count: 100_000)
    let request = Access.request { $0.userAgent = agent }
    #expect(
      try !Access.allows(
        ["Condition": #"{"StringLike":{"aws:UserAgent":"\#(pattern)"}}"#], request))
    #expect(
      try !Access.allows(["Resource": #""arn:\#(pattern)""#], request))
    #expect(try !Access.allows(["Action": #""sqs:\#(pattern)""#], request))
    #expect(
      try !Access.allows(
        ["Condition": #"{"ArnLike":{"aws:PrincipalArn":"\#(pattern)"}}"#], request))
  }

  @Test func eightKilobytesOfStarsAreOne() throws {
    let stars = String(repeating: "*", count: 7800)
    let request = Access.request { $0.userAgent = String(repeating: "a", count: 100_000) }
    let conditions = ["StringLike": "aws:UserAgent", "ArnLike": "aws:PrincipalArn"]
    for (name, key) in conditions {
      #expect(
        try Access.allows(["Condition": #"{"\#(name)":{"\#(key)":"\#(stars)"}}"#], request))
    }
    #expect(try Access.allows(["Action": #""\#(stars)""#], request))
    #expect(Access.error(Access.document(Access.statement(["Resource": #""\#(stars)""#]))) != nil)
  }

  @Test func variablesDoNotMultiply() throws {
    let variables = String(repeating: "${aws:UserAgent}", count: 480)
    let request = Access.request { $0.userAgent = String(repeating: "a", count: 100_000) }
    for name in ["StringLike", "StringEquals", "StringEqualsIgnoreCase", "ArnLike"] {
      #expect(
        try !Access.allows(
          ["Condition": #"{"\#(name)":{"aws:UserAgent":"*\#(variables)"}}"#], request))
    }
  }

  @Test func hugeLists() throws {
    for member in ["Action", "Resource", "Principal", "Sid", "Effect"] {
      let list = "[" + LimitsOfAccessPolicies.list(3800) { _ in "1" } + "]"
      #expect(Access.error(Access.document(Access.statement([member: list]))) != nil)
    }
    let values = LimitsOfAccessPolicies.list(3800) { _ in "1" }
    let condition = #"{"NumericEquals":{"aws:EpochTime":[\#(values)]}}"#
    #expect(try !Access.allows(["Condition": condition], Access.request()))
    let members = LimitsOfAccessPolicies.list(900) { #""\#($0)":1"# }
    #expect(Access.error("{\(members)}") != nil)
    #expect(Access.error(Access.document("{\(members)}")) != nil)
    #expect(Access.error(Access.document(Access.statement(["Condition": "{\(members)}"]))) != nil)
  }

  /// Any prefix, and any one byte of another kind, is read or refused.
  @Test func brokenDocuments() throws {
    let text = Access.document(
      Access.statement([
        "Principal": #"{"AWS":["123456789012"],"Service":"sns.amazonaws.com"}"#,
        "Resource": #""arn:aws:sqs:*:${aws:PrincipalAccount}:demo""#,
        "Condition": #"{"DateLessThan":{"aws:CurrentTime":"2026-05-04T03:02:01.5+02:00"},"#
          + #""IpAddress":{"aws:SourceIp":["10.0.0.0/8","2001:db8::/32"]}}"#,
      ]))
    let bytes = Array(text.utf8)
    let request = Access.request { $0.sourceIP = "10.1.2.3" }
    func read(_ bytes: some Collection<UInt8>) {
      let text = String(decoding: bytes, as: UTF8.self)
      guard let policy = try? AccessPolicy(text, .queue) else { return }
      _ = AccessDecision.decide(request, queuePolicy: policy, identityPolicy: nil)
      #expect(Access.error(policy.text) == nil)
    }
    for position in bytes.indices {
      read(bytes[..<position])
      for byte in "\"\\{}[],:*?$/.-0".utf8 {
        var changed = bytes
        changed[position] = byte
        read(changed)
      }
    }
  }
}
