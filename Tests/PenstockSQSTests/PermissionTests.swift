// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

private func add(
  _ label: String? = "one", _ accounts: [String]? = ["111122223333"],
  _ actions: [String]? = ["ReceiveMessage"], to policy: String? = nil
) throws(WireRefusal) -> String {
  try PermissionEditing.add(
    label: label, accounts: accounts, actions: actions, queueARN: Access.queue, to: policy)
}

private func refusal(_ body: () throws(WireRefusal) -> String?) -> WireRefusal? {
  do throws(WireRefusal) {
    _ = try body()
    return nil
  } catch { return error }
}

private func invalid(_ message: String) -> WireRefusal {
  WireRefusal(status: 400, code: "InvalidParameterValue", message: message)
}

@Suite struct AddingPermissions {
  @Test func theFirstMakesTheRecordedDocument() throws {
    let expected =
      #"{"Version":"2008-10-17","Id":"\#(Access.queue)/SQSDefaultPolicy","Statement":["#
      + #"{"Sid":"one","Effect":"Allow","#
      + #""Principal":{"AWS":"arn:aws:iam::111122223333:root"},"#
      + #""Action":"SQS:ReceiveMessage","Resource":"\#(Access.queue)"}]}"#
    #expect(try add() == expected)
    #expect(try add(to: "") == add())
  }

  @Test func severalAccountsAndActionsAreLists() throws {
    let text = try add(
      "a-Z_9", ["111122223333", "000000000000"], ["SendMessage", "*"])
    #expect(
      text.contains(
        #""Principal":{"AWS":["arn:aws:iam::111122223333:root","arn:aws:iam::000000000000:root"]},"#
          + #""Action":["SQS:SendMessage","SQS:*"]"#))
  }

  @Test func theNextIsAppendedAndTheRestStays() throws {
    let first = #"{"Sid":"x","Effect":"Deny","Principal":"*","Action":"sqs:*"}"#
    let second = #"{"Sid":"one","Effect":"Allow","#
    for before in [
      #"{"Statement":\#(first),"Version":"2012-10-17","Id":"\u0061"}"#,
      #"{"Statement":[ \#(first) ],"Version":"2012-10-17", "Id":"\u0061"}"#,
    ] {
      let text = try add(to: before)
      #expect(text.hasPrefix(#"{"Statement":[\#(first),\#(second)"#))
      #expect(text.hasSuffix(#"}],"Version":"2012-10-17","Id":"\u0061"}"#))
    }
    // Nothing is made up that was not there.
    #expect(try add(to: #"{"Statement":[\#(first)]}"#).hasPrefix(#"{"Statement":[\#(first),"#))
  }

  @Test func whatIsAllowedIsAllowed() throws {
    let policy = try AccessPolicy(
      try add("b", ["333333333333"], ["SendMessage"], to: try add("a")), .queue)
    func decision(_ account: String, _ action: String) -> AccessDecision {
      AccessDecision.decide(
        Access.request(Access.user("x", of: account), action), queuePolicy: policy,
        identityPolicy: nil)
    }
    #expect(decision("111122223333", "ReceiveMessage") == .allowed)
    #expect(decision("111122223333", "SendMessage") == .denied)
    #expect(decision("333333333333", "SendMessage") == .allowed)
    #expect(decision("444444444444", "SendMessage") == .denied)
  }

  @Test(arguments: [
    "*", "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
    "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues", "PurgeQueue",
  ])
  func actionsThatCanBeAllowed(_ action: String) throws {
    #expect(try add("a", ["111122223333"], [action]).contains(#""Action":"SQS:\#(action)""#))
  }

  @Test func parametersMustBeThere() {
    func missing(_ name: String) -> WireRefusal {
      WireRefusal(
        status: 400, code: "MissingParameter",
        message: "The request must contain the parameter \(name).")
    }
    for nothing: String? in [nil, ""] {
      #expect(refusal { () throws(WireRefusal) in try add(nothing, [], []) } == missing("Label"))
    }
    for nothing: [String]? in [nil, []] {
      #expect(
        refusal { () throws(WireRefusal) in try add("a", nothing, nothing) }
          == missing("ActionName"))
      #expect(
        refusal { () throws(WireRefusal) in try add("a", nothing) } == missing("AWSAccountIds"))
    }
  }

  @Test(arguments: ["a b", "ü", "a.b", String(repeating: "a", count: 81)])
  func labelsAreNames(_ label: String) {
    #expect(
      refusal { () throws(WireRefusal) in try add(label) }
        == invalid(
          "Value \(label) for parameter Label is invalid. Reason: Can only include alphanumeric "
            + "characters, hyphens, or underscores. 1 to 80 in length"))
  }

  @Test func eightyCharactersAreALabel() throws {
    _ = try add(String(repeating: "a", count: 80))
  }

  @Test func labelsAreUsedOnce() throws {
    let policy = try add()
    #expect(
      refusal { () throws(WireRefusal) in try add(to: policy) }
        == invalid("Value one for parameter Label is invalid. Reason: Already exists."))
    _ = try add("One", to: policy)
  }

  @Test func sevenActions() throws {
    let actions = Array(repeating: "SendMessage", count: 8)
    _ = try add("a", ["111122223333"], Array(actions.dropLast()))
    #expect(
      refusal { () throws(WireRefusal) in try add("a", ["111122223333"], actions) }
        == WireRefusal(
          status: 403, code: "OverLimit", message: "8 Actions were found, maximum allowed is 7."))
  }

  @Test func twentyStatements() throws {
    var policy: String?
    for number in 1...20 { policy = try add("l\(number)", to: policy) }
    #expect(
      refusal { () throws(WireRefusal) in try add("l21", to: policy) }
        == WireRefusal(
          status: 403, code: "OverLimit",
          message: "21 Statements were found, maximum allowed is 20."))
  }

  @Test(arguments: [
    "AddPermission", "RemovePermission", "CreateQueue", "DeleteQueue", "ListQueues",
    "ListQueueTags", "SetQueueAttributes", "TagQueue", "UntagQueue", "StartMessageMoveTask",
    "ListMessageMoveTasks", "CancelMessageMoveTask",
  ])
  func actionsOfTheOwnerAreRefused(_ action: String) {
    #expect(
      refusal { () throws(WireRefusal) in
        try add("a", ["111122223333"], ["SendMessage", action])
      }
        == invalid(
          "Value SQS:\(action) for parameter ActionName is invalid. Reason: Only the queue owner "
            + "is allowed to invoke this action."))
  }

  @Test(arguments: ["Frobnicate", "sendmessage", "SQS:SendMessage", "SendMessageBatch", "", "**"])
  func unknownActionsAreRefused(_ action: String) {
    #expect(
      refusal { () throws(WireRefusal) in
        try add("a", ["111122223333"], ["SendMessage", action])
      }
        == invalid(
          "Value SQS:\(action) for parameter ActionName is invalid. Reason: Please refer to the "
            + "appropriate WSDL for a list of valid actions. "))
  }

  @Test(arguments: [
    "", "12345", "1234567890123", "12345678901x", "*", "arn:aws:iam::111122223333:root",
    "١١١١٢٢٢٢٣٣٣٣",
  ])
  func whatIsNoAccountIsRefused(_ account: String) {
    #expect(
      refusal { () throws(WireRefusal) in try add("a", ["111122223333", account]) }
        == invalid(
          "Value [\(account)] for parameter PrincipalId is invalid. Reason: Unable to verify."))
  }

  /// Each of these is wrong in all that its place and those after it can be wrong in.
  @Test func errorsComeInTheirOrder() throws {
    var full: String?
    for number in 1...20 { full = try add("l\(number)", to: full) }
    let bad = ["nobody"]
    let many = Array(repeating: "None", count: 7) + ["DeleteQueue"]
    func message(_ label: String, _ actions: [String], _ policy: String?) -> String {
      refusal { () throws(WireRefusal) in try add(label, bad, actions, to: policy) }?.message ?? ""
    }
    #expect(message("", many, full).contains("the parameter Label."))
    #expect(message("l1", many, full).contains("Already exists."))
    #expect(message("new", many, full).contains("8 Actions"))
    #expect(message("new", many.suffix(2), full).contains("21 Statements"))
    #expect(message("new", many.suffix(2), nil).contains("Only the queue owner"))
    #expect(message("new", ["None"], nil).contains("appropriate WSDL"))
    #expect(message("new", ["*"], nil).contains("Unable to verify"))
  }

  /// What the table of errors does not mention: the limits of the policy itself.
  @Test func theWholeMustStayAPolicy() throws {
    let accounts = (0..<51).map { String(100_000_000_000 + $0) }
    _ = try add("a", Array(accounts.dropLast()))
    #expect(refusal { () throws(WireRefusal) in try add("a", accounts) }?.code == "OverLimit")
    let large = LimitsOfAccessPolicies.padded(to: 8100)
    let tooLarge = refusal { () throws(WireRefusal) in try add(to: large) }
    #expect(tooLarge?.status == 403)
    #expect(tooLarge?.message.hasSuffix(" bytes, max allowed is 8192") == true)
  }

  @Test(arguments: ["{", "x", "{}", #"{"Statement":[]}"#])
  func aPolicyThatIsNoneIsNotExtended(_ text: String) {
    let expected = WireRefusal(
      status: 400, code: "InvalidAttributeValue",
      message: "Invalid value for the parameter Policy.")
    #expect(refusal { () throws(WireRefusal) in try add(to: text) } == expected)
    #expect(
      refusal { () throws(WireRefusal) in try PermissionEditing.remove(label: "a", from: text) }
        == expected)
  }
}

@Suite struct RemovingPermissions {
  @Test func takesTheStatementOfThisLabelAlone() throws {
    let one = try add("one")
    let two = try add("two", ["333333333333"], to: one)
    #expect(try PermissionEditing.remove(label: "two", from: two) == one)
    let rest = try PermissionEditing.remove(label: "one", from: two)
    #expect(rest?.contains(#""Sid":"two""#) == true)
    #expect(rest?.contains(#""Sid":"one""#) == false)
  }

  @Test func theLastTakesThePolicyWithIt() throws {
    #expect(try PermissionEditing.remove(label: "one", from: try add("one")) == nil)
    let alone = #"{"Statement":\#(Access.statement(["Sid": #""one""#]))}"#
    #expect(try PermissionEditing.remove(label: "one", from: alone) == nil)
  }

  /// Nothing that this label allowed may stay.
  @Test func takesAllOfThatLabel() throws {
    let twice = Access.statement(["Sid": #""a""#])
    let other = Access.statement(["Sid": #""b""#])
    #expect(
      try PermissionEditing.remove(label: "a", from: Access.document(twice, other, twice))
        == Access.document(other))
  }

  @Test func aLabelMayBeWrittenWithEscapes() throws {
    let text = Access.document(Access.statement(["Sid": #""\u0061""#]))
    #expect(try PermissionEditing.remove(label: "a", from: text) == nil)
  }

  @Test func errors() throws {
    let policy = try add("one")
    for nothing: String? in [nil, ""] {
      #expect(
        refusal { () throws(WireRefusal) in
          try PermissionEditing.remove(label: nothing, from: policy)
        }
          == WireRefusal(
            status: 400, code: "MissingParameter",
            message: "The request must contain the parameter Label."))
      #expect(
        refusal { () throws(WireRefusal) in
          try PermissionEditing.remove(label: "x", from: nothing)
        } == invalid("Value x for parameter Label is invalid. Reason: can't find label."))
    }
    #expect(
      refusal { () throws(WireRefusal) in try PermissionEditing.remove(label: "x", from: policy) }
        == invalid(
          "Value x for parameter Label is invalid. Reason: can't find label on existing policy."))
  }
}
