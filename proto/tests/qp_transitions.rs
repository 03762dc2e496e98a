//! Which states a queue pair can go to, and with which attributes.

use proptest::prelude::*;
use tbrdma_proto::{
    ModifyError, PostDisposition, QpAttrMask, QpState, QpType, Transition, check_modify, transition,
};

/// Written apart from the implementation, one line a transition:
/// from, to, for whom, required, optional. `STATE` and transitions to RESET and ERR are left out.
const TABLE: &str = "
RESET INIT UD    PKEY_INDEX,PORT,QKEY          -
RESET INIT UC,RC PKEY_INDEX,PORT,ACCESS_FLAGS  -
INIT  INIT UD    -                             PKEY_INDEX,PORT,QKEY
INIT  INIT UC,RC -                             PKEY_INDEX,PORT,ACCESS_FLAGS
INIT  RTR  UD    -                             PKEY_INDEX,QKEY
INIT  RTR  UC    AV,PATH_MTU,DEST_QPN,RQ_PSN   PKEY_INDEX,ACCESS_FLAGS,ALT_PATH
INIT  RTR  RC    AV,PATH_MTU,DEST_QPN,RQ_PSN,MAX_DEST_RD_ATOMIC,MIN_RNR_TIMER PKEY_INDEX,ACCESS_FLAGS,ALT_PATH
RTR   RTS  UD    SQ_PSN                        CUR_STATE,QKEY
RTR   RTS  UC    SQ_PSN                        CUR_STATE,ACCESS_FLAGS,ALT_PATH,PATH_MIG_STATE
RTR   RTS  RC    SQ_PSN,TIMEOUT,RETRY_CNT,RNR_RETRY,MAX_QP_RD_ATOMIC CUR_STATE,ACCESS_FLAGS,ALT_PATH,PATH_MIG_STATE,MIN_RNR_TIMER
RTS   RTS  UD    -                             CUR_STATE,QKEY
RTS   RTS  UC    -                             CUR_STATE,ACCESS_FLAGS,ALT_PATH,PATH_MIG_STATE
RTS   RTS  RC    -                             CUR_STATE,ACCESS_FLAGS,ALT_PATH,PATH_MIG_STATE,MIN_RNR_TIMER
RTS   SQD  UD,UC,RC -                          EN_SQD_ASYNC_NOTIFY
SQD   RTS  UD    -                             CUR_STATE,QKEY
SQD   RTS  UC    -                             CUR_STATE,ACCESS_FLAGS,ALT_PATH,PATH_MIG_STATE
SQD   RTS  RC    -                             CUR_STATE,ACCESS_FLAGS,ALT_PATH,PATH_MIG_STATE,MIN_RNR_TIMER
SQD   SQD  UD    -                             PKEY_INDEX,QKEY
SQD   SQD  UC    -                             AV,ALT_PATH,ACCESS_FLAGS,PKEY_INDEX,PATH_MIG_STATE
SQD   SQD  RC    -                             PORT,AV,TIMEOUT,RETRY_CNT,RNR_RETRY,MAX_QP_RD_ATOMIC,MAX_DEST_RD_ATOMIC,ALT_PATH,ACCESS_FLAGS,PKEY_INDEX,MIN_RNR_TIMER,PATH_MIG_STATE
SQE   RTS  UD    -                             CUR_STATE,QKEY
SQE   RTS  UC    -                             CUR_STATE,ACCESS_FLAGS
";

fn masks(text: &str) -> QpAttrMask {
    text.split(',')
        .filter(|name| *name != "-")
        .map(|name| QpAttrMask::from_name(name).expect("a name in the table"))
        .collect()
}

/// What the table says of one transition.
fn expected(qp_type: QpType, from: QpState, to: QpState) -> Option<(QpAttrMask, QpAttrMask)> {
    if matches!(to, QpState::Reset | QpState::Err) {
        return Some((QpAttrMask::empty(), QpAttrMask::empty()));
    }
    TABLE.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let [a, b, who, required, optional] = std::array::from_fn(|_| fields.next().unwrap_or_default());
        let found = a == from.name() && b == to.name() && who.split(',').any(|w| w == qp_type.name());
        found.then(|| (masks(required), masks(optional)))
    })
}

fn every_step() -> impl Iterator<Item = (QpType, QpState, QpState)> {
    QpType::ALL.iter().flat_map(|&qp_type| {
        QpState::ALL.iter().flat_map(move |&from| QpState::ALL.iter().map(move |&to| (qp_type, from, to)))
    })
}

#[test]
fn the_state_machine_is_the_table() {
    let mut legal = 0;
    for (qp_type, from, to) in every_step() {
        let actual = transition(qp_type, from, to).map(|attrs| (attrs.required, attrs.optional));
        assert_eq!(actual, expected(qp_type, from, to), "{qp_type} {from} -> {to}");
        legal += usize::from(actual.is_some());
    }
    // Per type: 7 states to RESET, 7 to ERR, and 8 more; UC and UD recover from SQE besides.
    assert_eq!(legal, 3 * (14 + 8) + 2);
}

#[test]
fn every_bit_of_every_transition() {
    for (qp_type, from, to) in every_step() {
        let Some((required, optional)) = expected(qp_type, from, to) else {
            let refused = check_modify(qp_type, from, to, QpAttrMask::all());
            let step = Transition { qp_type, from, to };
            assert_eq!(refused, Err(ModifyError::IllegalTransition { step }));
            continue;
        };
        let needed = required | QpAttrMask::STATE;
        assert_eq!(check_modify(qp_type, from, to, needed), Ok(()));
        assert_eq!(check_modify(qp_type, from, to, needed | optional), Ok(()));
        for bit in (0..32).map(|bit| QpAttrMask::from_bits_retain(1 << bit)) {
            let (with, without) = (needed | bit, needed - bit);
            if required.contains(bit) {
                let refused = check_modify(qp_type, from, to, without);
                assert!(
                    matches!(refused, Err(ModifyError::MissingAttributes { missing, .. }) if missing == bit)
                );
            } else if !optional.contains(bit) && bit != QpAttrMask::STATE {
                let refused = check_modify(qp_type, from, to, with);
                assert!(
                    matches!(refused, Err(ModifyError::InvalidAttributes { invalid, .. }) if invalid == bit)
                );
            }
        }
    }
}

#[test]
fn the_state_bit_may_be_left_out_only_when_staying() {
    let mask = QpAttrMask::QKEY;
    assert_eq!(check_modify(QpType::Ud, QpState::Rts, QpState::Rts, mask), Ok(()));
    let refused = check_modify(QpType::Ud, QpState::Rts, QpState::Err, QpAttrMask::empty());
    assert!(matches!(refused, Err(ModifyError::MissingAttributes { missing: QpAttrMask::STATE, .. })));
    assert!(check_modify(QpType::Rc, QpState::Rtr, QpState::Rtr, QpAttrMask::empty()).is_err());
}

#[test]
fn the_usual_way_to_connect_works_for_each_type() {
    let rc = [
        "STATE,PKEY_INDEX,PORT,ACCESS_FLAGS",
        "STATE,AV,PATH_MTU,DEST_QPN,RQ_PSN,MAX_DEST_RD_ATOMIC,MIN_RNR_TIMER",
        "STATE,TIMEOUT,RETRY_CNT,RNR_RETRY,SQ_PSN,MAX_QP_RD_ATOMIC",
    ];
    let uc = ["STATE,PKEY_INDEX,PORT,ACCESS_FLAGS", "STATE,AV,PATH_MTU,DEST_QPN,RQ_PSN", "STATE,SQ_PSN"];
    let ud = ["STATE,PKEY_INDEX,PORT,QKEY", "STATE", "STATE,SQ_PSN"];
    let states = [QpState::Reset, QpState::Init, QpState::Rtr, QpState::Rts];
    for (qp_type, way) in [(QpType::Rc, rc), (QpType::Uc, uc), (QpType::Ud, ud)] {
        for (step, mask) in states.windows(2).zip(way) {
            assert_eq!(check_modify(qp_type, step[0], step[1], masks(mask)), Ok(()), "{qp_type} {mask}");
        }
    }
}

#[test]
fn refusals_name_the_states_the_attributes_and_the_way_out() {
    let text = |from, to, mask| check_modify(QpType::Rc, from, to, mask).unwrap_err().to_string();
    let error = text(QpState::Reset, QpState::Rts, QpAttrMask::STATE);
    assert!(
        error.contains("RC queue pair from RESET to RTS") && error.contains("RESET, INIT, ERR"),
        "{error}"
    );
    let error = text(QpState::Reset, QpState::Init, QpAttrMask::STATE | QpAttrMask::PORT);
    assert!(error.contains("needs ACCESS_FLAGS | PKEY_INDEX"), "{error}");
    let error = text(QpState::Rts, QpState::Sqd, QpAttrMask::STATE | QpAttrMask::from_bits_retain(1 << 30));
    assert!(error.contains("cannot change 0x40000000"), "{error}");
}

#[test]
fn posting_by_state() {
    use PostDisposition::{Execute, Flush, Hold, Refuse};
    let rows = [
        (QpState::Reset, Refuse, Refuse),
        (QpState::Init, Refuse, Hold),
        (QpState::Rtr, Refuse, Execute),
        (QpState::Rts, Execute, Execute),
        (QpState::Sqd, Hold, Execute),
        (QpState::Sqe, Flush, Execute),
        (QpState::Err, Flush, Flush),
    ];
    for (state, send, recv) in rows {
        assert_eq!((state.send_disposition(), state.recv_disposition()), (send, recv), "{state}");
        assert_eq!(
            (state.may_post_send(), state.may_post_recv()),
            (send != Refuse, recv != Refuse),
            "{state}"
        );
    }
    assert_eq!(QpState::default(), QpState::Reset);
}

proptest! {
    #[test]
    fn any_call_is_answered(t in 0usize..3, from in 0usize..7, to in 0usize..7, bits: u32) {
        let (qp_type, from, to) = (QpType::ALL[t], QpState::ALL[from], QpState::ALL[to]);
        let mask = QpAttrMask::from_bits_retain(bits);
        let allowed = expected(qp_type, from, to).is_some_and(|(required, optional)| {
            let state = if from == to { QpAttrMask::empty() } else { QpAttrMask::STATE };
            mask.contains(required | state)
                && bits & !(required | optional | QpAttrMask::STATE).bits() == 0
        });
        let answer = check_modify(qp_type, from, to, mask);
        prop_assert_eq!(answer.is_ok(), allowed);
        if let Err(error) = answer {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
