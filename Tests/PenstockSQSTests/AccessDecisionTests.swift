// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

@Suite struct AccessMatching {
  static let principals: [(name: String, Principal)] = [
    ("anonymous", .anonymous), ("root", .root(of: Access.other)),
    ("bob", Access.user("bob", of: Access.other)), ("al", Access.user("al", of: Access.other)),
    ("session", Access.session(of: "worker", account: Access.other)),
    ("third", Access.user("bob", of: "333333333333")), ("sns", .service("sns.amazonaws.com")),
    ("s3", .service("s3.amazonaws.com")),
  ]

  /// What Principal says, and whom of those above it lets in.
  static let whom: [(String, [String])] = [
    (#""*""#, ["anonymous", "root", "bob", "al", "session", "third", "sns", "s3"]),
    (#"{"AWS":"*"}"#, ["anonymous", "root", "bob", "al", "session", "third", "sns", "s3"]),
    (#"{"AWS":"210987654321"}"#, ["root", "bob", "al", "session"]),
    (#"{"AWS":"arn:aws:iam::210987654321:root"}"#, ["root", "bob", "al", "session"]),
    (#"{"AWS":"arn:aws:iam::210987654321:user/bob"}"#, ["bob"]),
    (#"{"AWS":"arn:aws:iam::210987654321:user/Bob"}"#, []),
    (#"{"AWS":"arn:aws:iam::210987654321:user/bo"}"#, []),
    (#"{"AWS":"arn:aws:iam::210987654321:role/worker"}"#, ["session"]),
    (#"{"AWS":"arn:aws:sts::210987654321:assumed-role/worker/now"}"#, ["session"]),
    (#"{"AWS":"arn:aws:sts::210987654321:assumed-role/worker/then"}"#, []),
    (#"{"AWS":["333333333333","arn:aws:iam::210987654321:user/al"]}"#, ["al", "third"]),
    (#"{"Service":"sns.amazonaws.com"}"#, ["sns"]),
    (#"{"Service":["sns.amazonaws.com","s3.amazonaws.com"]}"#, ["sns", "s3"]),
    (#"{"Service":"sns.amazonaws.com","AWS":"333333333333"}"#, ["third", "sns"]),
  ]

  @Test(arguments: whom)
  func principalsMatch(_ principal: String, _ expected: [String]) throws {
    for (name, who) in Self.principals {
      #expect(
        try Access.allows(["Principal": principal], Access.request(who))
          == expected.contains(name), "\(name)")
      #expect(
        try Access.allows(["Principal": "", "NotPrincipal": principal], Access.request(who))
          != expected.contains(name), "\(name)")
    }
  }

  /// What Action says, the action, whether they match.
  static let actions: [(String, String, Bool)] = [
    (#""*""#, "SendMessage", true), (#""sqs:*""#, "SendMessage", true),
    (#""SQS:SendMessage""#, "SendMessage", true), (#""sqs:sendmessage""#, "SendMessage", true),
    (#""sqs:SENDMESSAGE""#, "SendMessage", true), (#""sqs:Send""#, "SendMessage", false),
    (#""sqs:SendMessageBatch""#, "SendMessage", false), (#""sqs:Send*""#, "SendMessage", true),
    (#""sqs:*Message""#, "SendMessage", true), (#""sqs:*Message""#, "PurgeQueue", false),
    (#""sqs:?endMessage""#, "SendMessage", true), (#""sqs:?SendMessage""#, "SendMessage", false),
    (#""*:*""#, "SendMessage", true), (#""s?s:SendMessage""#, "SendMessage", true),
    (#"["sqs:PurgeQueue","sqs:SendMessage"]"#, "SendMessage", true),
    (#"["sqs:PurgeQueue","sqs:ReceiveMessage"]"#, "SendMessage", false),
  ]

  @Test(arguments: actions)
  func actionsMatch(_ pattern: String, _ action: String, _ expected: Bool) throws {
    let request = Access.request(.anonymous, action)
    #expect(try Access.allows(["Action": pattern], request) == expected)
    #expect(try Access.allows(["Action": "", "NotAction": pattern], request) != expected)
  }

  @Test(arguments: [
    ("SendMessageBatch", "SendMessage"), ("DeleteMessageBatch", "DeleteMessage"),
    ("ChangeMessageVisibilityBatch", "ChangeMessageVisibility"), ("SendMessage", "SendMessage"),
    ("ListQueues", "ListQueues"),
  ])
  func batchesAskForTheSingleAction(_ action: String, _ expected: String) {
    #expect(AccessRequest.actionName(of: action) == expected)
  }

  static let resources: [(String, Bool)] = [
    (#""*""#, true), (#""arn:aws:sqs:us-east-1:123456789012:demo""#, true),
    (#""arn:aws:sqs:us-east-1:123456789012:dem""#, false),
    (#""arn:aws:sqs:us-east-1:123456789012:Demo""#, false),
    (#""arn:aws:sqs:us-east-1:123456789012:other""#, false),
    (#""arn:aws:sqs:*:*:d?m*""#, true), (#""arn:*:sqs:us-*:123456789012:demo""#, true),
    (#""arn:aws:sns:*:*:*""#, false), (#""arn:aws:sqs:*:demo""#, false),
    (#""arn:aws:sqs:us-east-1*demo""#, false), (#""arn:aws:sqs:*""#, true),
    (#""arn:*""#, true), (#""arn:aws:sqs""#, false), (#""arn:aws:sqs:*:*:demo:*""#, false),
    (#"["arn:aws:sqs:*:*:a","arn:aws:sqs:*:*:demo"]"#, true),
  ]

  @Test(arguments: resources)
  func resourcesMatch(_ pattern: String, _ expected: Bool) throws {
    #expect(try Access.allows(["Resource": pattern], Access.request()) == expected)
    #expect(try Access.allows(["NotResource": pattern], Access.request()) != expected)
  }

  @Test func withoutAResourceAQueuesPolicyIsAboutTheQueue() throws {
    #expect(try Access.allows([:], Access.request()))
  }
}

@Suite struct AccessDecisions {
  private static let allow = Access.document(Access.statement())
  private static let deny = Access.document(
    Access.statement(), Access.statement(["Effect": #""Deny""#, "Action": #""sqs:Send*""#]))
  private static let nothing = Access.document(Access.statement(["Action": #""sqs:None""#]))

  private static func decide(
    _ request: AccessRequest, queue: String? = nil, identity: String? = nil
  ) throws -> AccessDecision {
    func ofIdentity(_ text: String) -> String {
      text.split(separator: #","Principal":"*""#).joined(separator: #","Resource":"*""#)
    }
    return AccessDecision.decide(
      request, queuePolicy: try queue.map { try AccessPolicy($0, .queue) },
      identityPolicy: try identity.map { try AccessPolicy(ofIdentity($0), .identity) })
  }

  private static let ours = [
    Principal.root(of: Access.owner), Access.user("alice"), Access.session(of: "worker"),
  ]
  private static let foreign = [
    Principal.root(of: Access.other), Access.user("bob", of: Access.other),
    Access.session(of: "worker", account: Access.other),
  ]

  @Test(arguments: ours)
  func theOwnersAccountMayDoEverything(_ who: Principal) throws {
    let request = Access.request(who)
    #expect(try Self.decide(request) == .allowed)
    #expect(try Self.decide(request, queue: Self.nothing) == .allowed)
    #expect(try Self.decide(request, queue: Self.allow) == .allowed)
  }

  @Test(arguments: ours)
  func aPolicyOfItsOwnBoundsThat(_ who: Principal) throws {
    let request = Access.request(who)
    #expect(try Self.decide(request, identity: Self.allow) == .allowed)
    #expect(try Self.decide(request, identity: Self.nothing) == .denied)
    #expect(try Self.decide(request, queue: Self.nothing, identity: Self.nothing) == .denied)
    // Either is enough.
    #expect(try Self.decide(request, queue: Self.allow, identity: Self.nothing) == .allowed)
    #expect(try Self.decide(request, queue: Self.nothing, identity: Self.allow) == .allowed)
  }

  @Test(arguments: ours + foreign + [.anonymous, .service("sns.amazonaws.com")])
  func whatTheQueueDeniesIsDenied(_ who: Principal) throws {
    let denied = AccessDecision.deniedExplicitly(by: .queuePolicy)
    #expect(try Self.decide(Access.request(who), queue: Self.deny) == denied)
    #expect(
      try Self.decide(Access.request(who), queue: Self.deny, identity: Self.allow) == denied)
    #expect(try Self.decide(Access.request(who), queue: Self.deny, identity: Self.deny) == denied)
    #expect(
      try Self.decide(Access.request(who, "ReceiveMessage"), queue: Self.deny) == .allowed)
  }

  @Test(arguments: ours + foreign)
  func whatThePrincipalsPolicyDeniesIsDenied(_ who: Principal) throws {
    #expect(
      try Self.decide(Access.request(who), queue: Self.allow, identity: Self.deny)
        == .deniedExplicitly(by: .identityPolicy))
    #expect(
      try Self.decide(
        Access.request(who, "ReceiveMessage"), queue: Self.allow, identity: Self.deny) == .allowed)
  }

  @Test func theOrderOfStatementsDoesNotCount() throws {
    let statements = [
      Access.statement(["Effect": #""Deny""#, "Action": #""sqs:Send*""#]), Access.statement(),
    ]
    for text in [
      Access.document(statements[0], statements[1]), Access.document(statements[1], statements[0]),
      Access.document(statements[1], statements[1], statements[0]),
    ] {
      #expect(
        try Self.decide(Access.request(), queue: text) == .deniedExplicitly(by: .queuePolicy))
    }
  }

  @Test(arguments: foreign + [.anonymous, .service("sns.amazonaws.com")])
  func othersNeedTheQueuesPolicy(_ who: Principal) throws {
    #expect(try Self.decide(Access.request(who)) == .denied)
    #expect(try Self.decide(Access.request(who), queue: Self.nothing) == .denied)
    #expect(try Self.decide(Access.request(who), identity: Self.allow) == .denied)
    #expect(try Self.decide(Access.request(who), queue: Self.allow) == .allowed)
    #expect(
      try Self.decide(Access.request(who), queue: Self.allow, identity: Self.allow) == .allowed)
  }

  /// A principal whose policy is known needs that of the queue and its own.
  @Test(arguments: foreign)
  func aForeignPolicyThatIsKnownCounts(_ who: Principal) throws {
    #expect(
      try Self.decide(Access.request(who), queue: Self.allow, identity: Self.nothing) == .denied)
  }

  @Test func nobodyHasAPolicyWithoutASignature() throws {
    for who in [Principal.anonymous, .service("sns.amazonaws.com")] {
      #expect(
        try Self.decide(Access.request(who), queue: Self.allow, identity: Self.deny) == .allowed)
      // A queue of an account without a name does not belong to those who have none.
      var request = Access.request(who)
      request.owner = ""
      #expect(try Self.decide(request) == .denied)
    }
  }

  @Test(arguments: [
    "AddPermission", "RemovePermission", "CreateQueue", "DeleteQueue", "ListQueues",
    "ListQueueTags", "SetQueueAttributes", "TagQueue", "UntagQueue", "StartMessageMoveTask",
    "ListMessageMoveTasks", "CancelMessageMoveTask",
  ])
  func actionsOfTheOwnerNeverCrossAccounts(_ action: String) throws {
    for who in Self.foreign + [.anonymous, .service("sns.amazonaws.com")] {
      #expect(
        try Self.decide(Access.request(who, action), queue: Self.allow, identity: Self.allow)
          == .denied)
    }
    for who in Self.ours {
      #expect(try Self.decide(Access.request(who, action)) == .allowed)
    }
  }

  @Test(arguments: [
    "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
    "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues", "PurgeQueue",
  ])
  func theOthersCrossThem(_ action: String) throws {
    for who in Self.foreign {
      #expect(try Self.decide(Access.request(who, action), queue: Self.allow) == .allowed)
    }
  }

  /// They concern no queue that has a policy.
  @Test(arguments: ["CreateQueue", "ListQueues"])
  func twoActionsHaveNoQueuePolicy(_ action: String) throws {
    let request = Access.request(Access.user("alice"), action)
    let deny = Access.document(Access.statement(["Effect": #""Deny""#]))
    #expect(try Self.decide(request, queue: deny) == .allowed)
    #expect(try Self.decide(request, queue: Self.allow, identity: Self.nothing) == .denied)
  }

  @Test func aQueueMayAllowAUserWhatTheirPolicyDoesNot() throws {
    let text = Access.document(
      Access.statement([
        "Principal": #"{"AWS":"arn:aws:iam::123456789012:user/alice"}"#,
        "Action": #""sqs:DeleteQueue""#,
      ]))
    for (name, expected) in [("alice", AccessDecision.allowed), ("albert", .denied)] {
      #expect(
        try Self.decide(
          Access.request(Access.user(name), "DeleteQueue"), queue: text, identity: Self.nothing)
          == expected)
    }
  }

  /// A policy for another queue that was put onto this one says nothing about it.
  @Test func aStatementAboutAnotherQueueSaysNothing() throws {
    let other = #""arn:aws:sqs:us-east-1:123456789012:other""#
    let allow = Access.document(Access.statement(["Resource": other]))
    let deny = Access.document(Access.statement(["Effect": #""Deny""#, "Resource": other]))
    #expect(try Self.decide(Access.request(), queue: allow) == .denied)
    #expect(try Self.decide(Access.request(Access.user("alice")), queue: deny) == .allowed)
  }
}

@Suite struct AccessDenials {
  static let names: [(Principal, String)] = [
    (Access.user("alice"), "arn:aws:iam::123456789012:user/alice"),
    (.root(of: Access.owner), "arn:aws:iam::123456789012:root"),
    (Access.session(of: "worker"), "arn:aws:sts::123456789012:assumed-role/worker/now"),
    (.anonymous, "anonymous"), (.service("sns.amazonaws.com"), "sns.amazonaws.com"),
  ]

  @Test(arguments: names)
  func texts(_ who: Principal, _ name: String) {
    let request = Access.request(who)
    let start =
      "User: \(name) is not authorized to perform: sqs:sendmessage on resource: \(Access.queue) "
    let endings: [(AccessDecision, String)] = [
      (.denied, "because no identity-based policy allows the sqs:sendmessage action"),
      (.deniedExplicitly(by: .queuePolicy), "with an explicit deny in a resource-based policy"),
      (
        .deniedExplicitly(by: .identityPolicy), "with an explicit deny in an identity-based policy"
      ),
    ]
    for (decision, ending) in endings {
      #expect(
        decision.refusal(for: request)
          == WireRefusal(status: 403, code: "AccessDenied", message: start + ending))
    }
    #expect(AccessDecision.allowed.refusal(for: request) == nil)
  }
}
